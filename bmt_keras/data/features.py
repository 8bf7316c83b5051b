"""What a model sees of each photo, computed once and kept on disk.

For a frozen image tower these are its embeddings, for one that is trained
along the decoded and resized pixels. Both lie in shards, beside a manifest
that ties them to the photos and to all that shaped them.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.feature_shards import (
    ShardLayout,
    check_shards,
    map_shard,
    spoilt_shard,
)
from bmt_keras.data.feature_source import FeatureSource
from bmt_keras.data.shard_folder import (
    Manifest,
    find_missing,
    plan_shards,
    read_manifest,
    take_up_again,
    unfinished_folder,
    write_manifest,
)
from bmt_keras.data.shard_writing import ShardWriter, write_shards
from bmt_keras.data.sharded_rows import ShardedRows
from bmt_keras.errors import InputError

# So many photos are lost, at most, if a run is killed.
SHARD_SIZE = 1024


@dataclass(frozen=True)
class ImageFeatures:
    """Features of photos.

    Attributes:
        array: (photos, ...) uint8 pixels or float16 embeddings, read from disk
            when rows are asked for.
        rows: The row of each photo, by image id.
    """

    array: np.ndarray | ShardedRows
    rows: dict[int, int]


def prepare_features(
    photos: Sequence[CaptionedImage],
    source: FeatureSource,
    *,
    folder: str | Path,
    skip_bad: bool = False,
    shard_size: int = SHARD_SIZE,
    writer: ShardWriter = write_shards,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageFeatures:
    """Computes the features of photos, or opens them where they were kept.

    A run that was killed is gone on with at its first unfinished shard; a
    shard that was deleted is computed anew.

    Args:
        photos: The photos.
        source: How features are made.
        folder: Where they are kept; written beside and renamed when whole.
        skip_bad: Leave out photos that cannot be read instead of stopping.
        shard_size: Photos of a shard, where no shard is there yet.
        writer: Fills the shards.
        on_progress: Called with photos done and photos to do.

    Returns:
        The features, opened read-only.

    Raises:
        InputError: Photos cannot be read (unless skipped), the folder holds
            features made of other photos or with other settings, a shard is
            not sound, or another process is writing the folder.
    """
    folder = Path(folder)
    wanted = {"photos": _fingerprint(photos), **source.settings}
    if folder.exists():
        manifest = read_manifest(folder)
        _check_settings(folder, manifest.settings, wanted)
        if all((folder / name).exists() for name in manifest.image_ids):
            _check_sound(folder, manifest, source.layout)
            return _open(folder, manifest, source.layout)
        take_up_again(folder)
        shard_size = manifest.shard_size
    with unfinished_folder(folder, wanted, shard_size) as (hidden, shard_size):
        shards = plan_shards(hidden, photos, shard_size)
        writer(
            find_missing(shards, source.layout),
            source,
            skip_bad=skip_bad,
            on_progress=on_progress,
        )
        image_ids = {
            shard.path.name: map_shard(shard.path, source.layout)[
                "image_id"
            ].tolist()
            for shard in shards
        }
        if not any(image_ids.values()):
            raise InputError(
                "Expected photos that can be read, found none among "
                f"{len(photos)}."
            )
        manifest = Manifest(wanted, shard_size, image_ids)
        write_manifest(hidden, manifest)
    return _open(folder, manifest, source.layout)


def _fingerprint(photos: Sequence[CaptionedImage]) -> str:
    digest = hashlib.sha256()
    for photo in photos:
        size = photo.path.stat().st_size if photo.path.is_file() else -1
        line = f"{photo.image_id}\t{photo.path.name}\t{size}\n"
        digest.update(line.encode(errors="backslashreplace"))
    return digest.hexdigest()


def _check_settings(
    folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            raise InputError(
                f"{folder}: the cache was written with other settings: "
                f"`{key}` is {found.get(key)!r} there, expected {value!r}; "
                "delete the folder, or give another cache folder."
            )


def _check_sound(folder: Path, manifest: Manifest, layout: ShardLayout) -> None:
    """Reads each shard once, so that no bad row turns up while training."""
    paths = [folder / name for name in manifest.image_ids]
    for path, fault in check_shards(paths, layout):
        if fault:
            raise spoilt_shard(path, fault)
        found = map_shard(path, layout)["image_id"].tolist()
        if found != manifest.image_ids[path.name]:
            raise spoilt_shard(path, "other photos than in the manifest")


def _open(
    folder: Path, manifest: Manifest, layout: ShardLayout
) -> ImageFeatures:
    array = ShardedRows(
        [
            map_shard(folder / name, layout)["features"]
            for name in manifest.image_ids
        ]
    )
    image_ids = [i for each in manifest.image_ids.values() for i in each]
    return ImageFeatures(array, {id_: row for row, id_ in enumerate(image_ids)})
