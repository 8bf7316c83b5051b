"""What every layout is read as: rows of an image and one of its captions."""

import logging
import re
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)
_WHOLE = re.compile(r"(-?[0-9]{1,19})(?:\.0+)?")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # which no tokenizer takes
NAME_FIELDS = ("file_name", "filename", "image", "image_name")
CAPTION_FIELDS = ("caption", "captions", "text", "comment", "sentences")
# Karpathy's "restval" is the rest of COCO's validation photos, to train on.
_SPLITS = {"restval": "train", "validation": "val"}
Record = tuple[str, Any]  # where it stands, and its fields as they are


class CaptionRow(NamedTuple):
    """One caption; a row without one says that the file lists the image."""

    file_name: str
    caption: str | None
    image_id: int | None
    split: str | None


@dataclass
class Faults:
    """Rows of a file that cannot be used: all counted, the first one named."""

    path: Path
    count: int = 0
    first: str = ""

    def add(self, where: str, expected: str, found: Any) -> None:
        """Counts a row that is left out."""
        if not self.count:
            found = shorten(found)
            self.first = f"{where[:99]}: expected {expected}, found {found}"
        self.count += 1

    def report(self, *, skip_bad: bool) -> None:
        """Warns of the faults, or raises an `InputError`."""
        if not self.count:
            return
        found = f"{self.path}: {self.first} (1 of {self.count} unusable rows)."
        if not skip_bad:
            raise InputError(f"{found} Mend or leave them out by --skip-bad.")
        _LOGGER.warning("%s They are left out.", found)


def to_rows(records: Iterable[Record], faults: Faults) -> Iterator[CaptionRow]:
    """Checks records of a file name and a caption or several."""
    for where, record in records:
        fields = record if isinstance(record, dict) else {}
        name = next(filter(fields.__contains__, NAME_FIELDS), NAME_FIELDS[0])
        field = next(filter(fields.__contains__, CAPTION_FIELDS), "caption")
        if (file_name := _to_text(fields.get(name))) is None:
            faults.add(where, f"text in `{name}`", fields.get(name))
            continue
        captions = fields.get(field)
        captions = captions if isinstance(captions, list) else [captions]
        texts = [_to_text(each) for each in captions]
        for each, text in zip(captions, texts, strict=True):
            if text is None:
                faults.add(where, f"text in `{field}`", each)
        image_id = whole_number(fields.get("image_id"))
        split = str(fields.get("split") or "")
        split = _SPLITS.get(split, split)
        for text in list(filter(None, texts)) or (None,):
            yield CaptionRow(file_name, text, image_id, split or None)


def has_fields(names: Iterable[str]) -> bool:
    """Whether both a file name and a caption are among the fields."""
    fields = {*names}
    return bool(fields & {*NAME_FIELDS} and fields & {*CAPTION_FIELDS})


def whole_number(value: Any) -> int | None:
    """Gives an id of 64 bits, also from 7.0, "7" or "7.0"; None for others."""
    if isinstance(value, str) and (match := _WHOLE.fullmatch(value)):
        value = int(match[1])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    # To Python a truth value is an int, too.
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and -(2**63) <= value < 2**63 else None


def shorten(value: Any) -> str:
    """Shows a value, long or deep as it may be, within a message."""
    return reprlib.repr(value)[:80]


def _to_text(value: Any) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return None if _HALF_CHARACTER.search(text) else text or None
