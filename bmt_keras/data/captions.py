"""Images and their captions, read from COCO's captions format."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedImage:
    """An image on disk with all its captions."""

    image_id: int
    path: Path
    captions: tuple[str, ...]


def read_coco_captions(
    path: str | Path, images: str | Path, *, limit: int | None = None
) -> list[CaptionedImage]:
    """Reads a captions file and finds its images.

    Args:
        path: JSON with `images` (`id`, `file_name`) and `annotations` (`id`,
            `image_id`, `caption`).
        images: The folder that the file names are relative to.
        limit: Keep only the first N images of the file.

    Returns:
        The images in the file's order. Those without a caption are left out;
        whether a file exists and can be decoded shows when it is read.

    Raises:
        InputError: The file or folder is missing or malformed; the message
            names the file, the entry and the field.
    """
    path, folder = Path(path), Path(images)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of photos, found none.")
    file_names, captions = _read_file(path)
    captioned = [
        CaptionedImage(image_id, folder / name, tuple(captions[image_id]))
        for image_id, name in file_names.items()
        if captions[image_id]
    ]
    if not captioned:
        raise InputError(
            f"{path}: expected captions in `annotations`, found none."
        )
    if len(captioned) < len(file_names):
        _LOGGER.warning(
            "%s: %d photos have no caption and are left out.",
            path,
            len(file_names) - len(captioned),
        )
    return captioned[:limit]


def read_texts(path: str | Path) -> list[str]:
    """Reads the captions of a file, as `read_coco_captions`, without images."""
    _, captions = _read_file(Path(path))
    return [text for texts in captions.values() for text in texts]


def read_references(path: str | Path) -> list[tuple[int, str, list[str]]]:
    """Reads ids, file names and captions of images, without the images."""
    file_names, captions = _read_file(Path(path))
    return [(key, name, captions[key]) for key, name in file_names.items()]


def split_images(
    images: Sequence[CaptionedImage], val_share: float, *, seed: int
) -> tuple[list[CaptionedImage], list[CaptionedImage]]:
    """Splits by image, so that all captions of an image stay on one side.

    Args:
        images: The images to split.
        val_share: Share of the images held out, in (0, 1).
        seed: Seed of the split.

    Returns:
        Training and validation images, each in the given order.

    Raises:
        InputError: The share leaves one side empty.
    """
    count = round(len(images) * val_share)
    if not 0 < count < len(images):
        raise InputError(
            "`val_share` must leave photos on both sides. Received: "
            f"val_share={val_share} of {len(images)} photos."
        )
    order = np.random.default_rng(seed).permutation(len(images))
    held_out = set(order[:count].tolist())
    train = [each for i, each in enumerate(images) if i not in held_out]
    return train, [images[i] for i in sorted(held_out)]


def drop_final_period(text: str) -> str:
    """Returns a caption without the full stop at its end; an ellipsis stays.

    Example:
        >>> drop_final_period("A dog runs .")
        'A dog runs'
    """
    short = text.rstrip()
    if short.endswith(".") and not short.endswith(".."):
        short = short[:-1].rstrip()
    return short or text


def _read_file(path: Path) -> tuple[dict[int, str], dict[int, list[str]]]:
    """The file names and the captions of a file's image ids."""
    content = _load_json(path)
    file_names = {
        image_id: name
        for _, image_id, name in _read_entries(
            path, content, "images", {"id": int, "file_name": str}
        )
    }
    captions: dict[int, list[str]] = defaultdict(list)
    fields = {"id": int, "image_id": int, "caption": str}
    for where, _, image_id, caption in _read_entries(
        path, content, "annotations", fields
    ):
        if image_id not in file_names:
            raise InputError(
                f"{where}: expected an `image_id` listed in `images`, found "
                f"{image_id}."
            )
        if not caption.strip():
            raise InputError(
                f"{where}: expected a caption, found an empty one (image "
                f"{image_id})."
            )
        captions[image_id].append(caption.strip())
    return file_names, captions


def _load_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: expected a captions file in COCO's format, found no such "
            "file."
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: expected JSON, found a fault at line {error.lineno}, "
            f"column {error.colno}: {error.msg}."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the file cannot be read: {error}."
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected COCO's captions format, an object with lists "
            f"`images` and `annotations`, found {type(content).__name__}."
        )
    return content


def _read_entries(
    path: Path, content: dict[str, Any], key: str, fields: dict[str, type]
) -> Iterator[tuple[Any, ...]]:
    """Gives where each entry of a list stands, and its fields, checked."""
    entries = content.get(key)
    if not isinstance(entries, list):
        found = "none" if entries is None else f"a {type(entries).__name__}"
        raise InputError(
            f"{path}: expected COCO's captions format, an object with a list "
            f"`{key}`, found {found} there."
        )
    seen = set()
    for row, entry in enumerate(entries):
        where = f"{path}: {key}[{row}]"
        values = entry if isinstance(entry, dict) else {}
        for name, kind in fields.items():
            value = values.get(name)
            # To Python a truth value is an int, too.
            if not isinstance(value, kind) or isinstance(value, bool):
                raise InputError(
                    f"{where}: expected a field `{name}` of type "
                    f"{kind.__name__}, found {value!r}."
                )
        if entry["id"] in seen:
            raise InputError(f"{where}: the id {entry['id']} is a duplicate.")
        seen.add(entry["id"])
        yield where, *(entry[name] for name in fields)
