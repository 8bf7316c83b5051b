"""What a model sees of each photo, computed once and kept on disk.

For a frozen image tower these are its embeddings, for one that is trained
along the decoded and resized pixels. Both are one memory-mapped array and a
manifest that ties it to the photos and to all that shaped it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmt_keras.atomic import write_folder_atomically
from bmt_keras.data.coco import Photo
from bmt_keras.data.images import PREPROCESSING_VERSION
from bmt_keras.data.photo_reader import decode_photos, report_unreadable
from bmt_keras.errors import InputError

_ARRAY, _MANIFEST = "features.npy", "manifest.json"


@dataclass(frozen=True)
class PhotoFeatures:
    """Features of photos.

    Attributes:
        array: (photos, ...) uint8 pixels or float16 embeddings, memory-mapped.
        rows: The row of each photo, by image id.
    """

    array: np.ndarray
    rows: dict[int, int]


@dataclass(frozen=True)
class FeatureSource:
    """How features are made of pixels.

    Attributes:
        height: Height in pixels to which photos are resized.
        width: Width in pixels.
        encode: (batch, height, width, 3) uint8 to (batch, ...) float; None
            keeps the pixels.
        encoder_settings: What tells one encoder from another (name, layer,
            hash of the weights), JSON values alone.
    """

    height: int
    width: int
    encode: Callable[[np.ndarray], np.ndarray] | None = None
    encoder_settings: Mapping[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What a cache of these features depends on, besides the photos."""
        return {
            "height": self.height,
            "width": self.width,
            "preprocessing_version": PREPROCESSING_VERSION,
            "encoder": dict(self.encoder_settings or {}) or None,
        }


def prepare_features(
    photos: Sequence[Photo],
    source: FeatureSource,
    *,
    folder: str | Path,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> PhotoFeatures:
    """Computes the features of photos, or opens them where they were kept.

    Args:
        photos: The photos.
        source: How features are made.
        folder: Where they are kept; written beside and renamed when whole.
        skip_bad: Leave out photos that cannot be read instead of stopping.
        on_progress: Called with photos done and photos in all.

    Returns:
        The features, opened read-only.

    Raises:
        InputError: Photos cannot be read (unless skipped), or the folder holds
            features made of other photos or with other settings.
    """
    folder = Path(folder)
    wanted = {"photos": _fingerprint(photos), **source.settings}
    if folder.exists():
        return _open(folder, wanted)
    with write_folder_atomically(folder) as partial:
        image_ids = _compute(photos, source, partial, skip_bad, on_progress)
        manifest = {"settings": wanted, "image_ids": image_ids}
        (partial / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return _open(folder, wanted)


def _compute(
    photos: Sequence[Photo],
    source: FeatureSource,
    folder: Path,
    skip_bad: bool,
    on_progress: Callable[[int, int], None] | None,
) -> list[int]:
    array: np.memmap[Any, Any] | None = None
    good: list[int] = []
    bad: list[str] = []
    for batch, pixels, errors in decode_photos(
        photos, height=source.height, width=source.width
    ):
        bad += [
            f"{p.path} ({e})" for p, e in zip(batch, errors, strict=True) if e
        ]
        keep = [i for i, error in enumerate(errors) if not error]
        if keep and (skip_bad or not bad):
            features = pixels[keep]
            if source.encode is not None:
                features = source.encode(features).astype(np.float16)
            if array is None:
                shape = (len(photos), *features.shape[1:])
                array = np.lib.format.open_memmap(
                    folder / _ARRAY,
                    mode="w+",
                    dtype=features.dtype,
                    shape=shape,
                )
            array[len(good) : len(good) + len(keep)] = features
        good += [batch[i].image_id for i in keep]
        if on_progress is not None:
            on_progress(len(good) + len(bad), len(photos))
    report_unreadable(bad, len(photos), skip_bad=skip_bad)
    if array is None:
        raise InputError(
            f"Expected photos that can be read, found none among {len(photos)}."
        )
    array.flush()
    return good


def _fingerprint(photos: Sequence[Photo]) -> str:
    digest = hashlib.sha256()
    for photo in photos:
        size = photo.path.stat().st_size if photo.path.is_file() else -1
        line = f"{photo.image_id}\t{photo.path.name}\t{size}\n"
        digest.update(line.encode(errors="backslashreplace"))
    return digest.hexdigest()


def _open(folder: Path, wanted: Mapping[str, Any]) -> PhotoFeatures:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        found, image_ids = dict(manifest["settings"]), manifest["image_ids"]
        array = np.load(folder / _ARRAY, mmap_mode="r", allow_pickle=False)
        rows = {int(id_): row for row, id_ in enumerate(image_ids)}
        if len(rows) > len(array):
            raise ValueError(f"{len(rows)} photos, {len(array)} rows")
    except (OSError, EOFError, ValueError, KeyError, TypeError) as err:
        raise InputError(
            f"{folder}: expected features of photos, found none that are "
            "sound; delete the folder, or give another cache folder."
        ) from err
    for key, value in wanted.items():
        if found.get(key) != value:
            raise InputError(
                f"{folder}: the cache was written with other settings: "
                f"`{key}` is {found.get(key)!r} there, expected {value!r}; "
                "delete the folder, or give another cache folder."
            )
    return PhotoFeatures(array, rows)
