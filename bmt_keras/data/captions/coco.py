"""COCO's captions JSON: a list of images, and one of annotations.

The ids that join the two may be numbers or text. Those of annotations say
nothing and are not read.
"""

from collections.abc import Iterator
from typing import Any

from bmt_keras.data.captions.rows import Faults, Record, whole_number
from bmt_keras.errors import InputError

_KEY = "a whole number of at most 64 bits, or text, in "


def read_records(content: dict[str, Any], faults: Faults) -> Iterator[Record]:
    """Gives first the images, then the captions."""
    # None for an image that is left out with its captions.
    names: dict[int | str, Any] = {}
    for where, entry in _entries(content, "images", faults):
        key, name = _key(entry.get("id")), entry.get("file_name")
        if key is None:
            faults.add(where, f"{_KEY}`id`", entry.get("id"))
        elif names.setdefault(key, name) == name:
            yield where, {"file_name": name, "captions": [], "image_id": key}
            names[key] = name if isinstance(name, str) else None
        else:
            # Which of the two the captions describe is not known.
            names[key] = None
            faults.add(where, "an `id` of its own", key)
    for where, entry in _entries(content, "annotations", faults):
        key = _key(entry.get("image_id"))
        if key is None:
            faults.add(where, f"{_KEY}`image_id`", entry.get("image_id"))
        elif key not in names:
            faults.add(where, "an `image_id` listed in `images`", key)
        elif names[key] is not None:
            caption = entry.get("caption")
            yield where, {"file_name": names[key], "caption": caption}


def _entries(
    content: dict[str, Any], key: str, faults: Faults
) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        found = "none" if entries is None else f"a {type(entries).__name__}"
        raise InputError(
            f"{faults.path}: expected COCO's captions, an object with lists "
            f"`images` and `annotations`, found {found} as `{key}`."
        )
    for row, entry in enumerate(entries):
        yield f"{key}[{row}]", entry if isinstance(entry, dict) else {}


def _key(value: Any) -> int | str | None:
    number = whole_number(value)
    return value if number is None and isinstance(value, str) else number
