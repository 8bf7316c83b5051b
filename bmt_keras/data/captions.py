"""Photos and their captions, read from COCO's captions format."""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedImage:
    """A photo on disk with all its captions."""

    image_id: int
    path: Path
    captions: tuple[str, ...]


def read_coco_captions(
    captions_file: str | Path,
    images_dir: str | Path,
    *,
    limit: int | None = None,
) -> list[CaptionedImage]:
    """Reads a captions file and finds its photos.

    Args:
        captions_file: JSON with `images` (`id`, `file_name`) and `annotations`
            (`id`, `image_id`, `caption`).
        images_dir: The folder that the file names are relative to.
        limit: Keep only so many photos, the first ones of the file.

    Returns:
        The photos in the file's order, each with all its captions. Photos
        without a caption are left out; whether a photo's file exists and can
        be decoded shows when it is read.

    Raises:
        InputError: The file or folder is missing or malformed; the message
            names the file, the entry and the field.
    """
    path, folder = Path(captions_file), Path(images_dir)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of photos, found none.")
    content = _load_json(path)
    file_names = _read_images(path, content["images"])
    captions = _read_annotations(path, content["annotations"], file_names)
    photos = [
        CaptionedImage(image_id, folder / name, tuple(captions[image_id]))
        for image_id, name in file_names.items()
        if captions[image_id]
    ]
    if not photos:
        raise InputError(
            f"{path}: expected captions in `annotations`, found none."
        )
    if len(photos) < len(file_names):
        _LOGGER.warning(
            "%s: %d photos have no caption and are left out.",
            path,
            len(file_names) - len(photos),
        )
    return photos[:limit]


def read_texts(captions_file: str | Path) -> list[str]:
    """Reads the texts of a captions file, whatever their photos.

    Args:
        captions_file: As for `read_coco_captions`.

    Returns:
        The captions.

    Raises:
        InputError: As for `read_coco_captions`.
    """
    path = Path(captions_file)
    content = _load_json(path)
    names = _read_images(path, content["images"])
    captions = _read_annotations(path, content["annotations"], names)
    return [text for texts in captions.values() for text in texts]


def split_photos(
    photos: Sequence[CaptionedImage], val_share: float, *, seed: int
) -> tuple[list[CaptionedImage], list[CaptionedImage]]:
    """Splits by photo, so that all captions of a photo stay on one side.

    Args:
        photos: The photos to split.
        val_share: Share of the photos held out, in (0, 1).
        seed: The same seed gives the same split.

    Returns:
        Training and validation photos, each in the given order.

    Raises:
        InputError: The share leaves one side empty.
    """
    count = round(len(photos) * val_share)
    if not 0 < count < len(photos):
        raise InputError(
            "`val_share` must leave photos on both sides. Received: "
            f"val_share={val_share} of {len(photos)} photos."
        )
    order = np.random.default_rng(seed).permutation(len(photos))
    held_out = set(order[:count].tolist())
    train = [p for i, p in enumerate(photos) if i not in held_out]
    return train, [photos[i] for i in sorted(held_out)]


def _load_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise InputError(
            f"{path}: expected a captions file in COCO's format, found no such "
            "file."
        ) from err
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"{path}: the file cannot be read: {err}.") from err
    except json.JSONDecodeError as err:
        raise InputError(
            f"{path}: expected JSON, found a fault at line {err.lineno}, "
            f"column {err.colno}: {err.msg}."
        ) from err
    for key in ("images", "annotations"):
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list):
            raise InputError(
                f"{path}: expected COCO's captions format, an object with a "
                f"list `{key}`, found {_kind(found, content)}."
            )
    return content


def _kind(found: Any, content: Any) -> str:
    if not isinstance(content, dict):
        return f"a JSON {type(content).__name__}"
    return "none" if found is None else f"a {type(found).__name__} there"


def _read_images(path: Path, entries: list[Any]) -> dict[int, str]:
    file_names: dict[int, str] = {}
    for row, entry in enumerate(entries):
        where = f"{path}: images[{row}]"
        image_id = _field(where, entry, "id", int)
        if image_id in file_names:
            raise InputError(
                f"{where}: the image id {image_id} is a duplicate."
            )
        file_names[image_id] = _field(where, entry, "file_name", str)
    return file_names


def _read_annotations(
    path: Path, entries: list[Any], file_names: dict[int, str]
) -> dict[int, list[str]]:
    captions: dict[int, list[str]] = defaultdict(list)
    seen: set[int] = set()
    for row, entry in enumerate(entries):
        where = f"{path}: annotations[{row}]"
        annotation_id = _field(where, entry, "id", int)
        image_id = _field(where, entry, "image_id", int)
        caption = _field(where, entry, "caption", str).strip()
        if annotation_id in seen:
            raise InputError(
                f"{where}: the annotation id {annotation_id} is a duplicate."
            )
        if image_id not in file_names:
            raise InputError(
                f"{where}: expected an `image_id` listed in `images`, found "
                f"{image_id}."
            )
        if not caption:
            raise InputError(
                f"{where}: expected a caption, found an empty one (image "
                f"{image_id})."
            )
        seen.add(annotation_id)
        captions[image_id].append(caption)
    return captions


def _field(where: str, entry: Any, name: str, kind: type) -> Any:
    found = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise InputError(
            f"{where}: expected a field `{name}` of type {kind.__name__}, "
            f"found {found!r}."
        )
    return found


def drop_final_period(caption: str) -> str:
    """Returns a caption without the full stop at its end.

    Args:
        caption: A caption; an ellipsis at its end stays.

    Example:
        >>> drop_final_period("A dog runs .")
        'A dog runs'
    """
    text = caption.rstrip()
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    return text or caption
