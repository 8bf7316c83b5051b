"""The one place that tells the layouts apart, by what a file holds."""

import json
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bmt_keras.data.captions import coco, flickr, karpathy, metadata, text_files
from bmt_keras.data.captions.content import not_captions, read_text
from bmt_keras.data.captions.rows import (
    CaptionRow,
    Faults,
    Record,
    has_fields,
    shorten,
    to_rows,
)
from bmt_keras.data.captions.web_dataset import read_tar
from bmt_keras.errors import InputError


def read_rows(path: str | Path, *, skip_bad: bool = False) -> list[CaptionRow]:
    """Reads a captions file, or a folder of photos and texts.

    Raises:
        InputError: It is none of the layouts, has no captions, or, without
            `skip_bad`, has rows that cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        names = ("metadata.jsonl", "metadata.csv")
        found = (path / name for name in names if (path / name).is_file())
        path = next(found, path)
    faults = Faults(path)
    rows = list(to_rows(_read_records(path, faults), faults))
    faults.report(skip_bad=skip_bad)
    if not any(row.caption for row in rows):
        raise InputError(f"{path}: expected captions, found none.")
    return rows


def _read_records(path: Path, faults: Faults) -> Iterable[Record]:
    if path.is_dir():
        return text_files.read_records(path)
    # What is broken and compressed is told where it is read as text.
    with suppress(OSError, EOFError):
        if tarfile.is_tarfile(path):
            return read_tar(path, faults)
    text = read_text(path)
    start = len(text) - len(text.lstrip())
    if text.startswith(("{", "["), start):
        return _read_json(text, start, faults)
    line = text[start:].split("\n", 1)[0].strip()
    if flickr.HEADER.fullmatch(line):
        return flickr.read_records(text, flickr.RESULT, faults)
    if flickr.TOKEN.fullmatch(line):
        return flickr.read_records(text, flickr.TOKEN, faults)
    if delimiter := metadata.find_delimiter(line):
        return metadata.read_table(text, delimiter, faults)
    begins = f"text that begins {shorten(line)}"
    raise not_captions(path, begins if line else "an empty file")


def _read_json(text: str, start: int, faults: Faults) -> Iterable[Record]:
    try:
        content, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{faults.path}: expected JSON, found a fault: {error}."
        ) from error
    if isinstance(content, dict) and has_fields(content):
        return metadata.read_lines(text, faults)
    found = f"JSON like {shorten(content)}"
    if text[end:].strip():
        raise not_captions(faults.path, f"{found} and more after it")
    if isinstance(content, dict):
        images = content.get("images")
        if isinstance(images, list) and any(
            isinstance(image, dict) and "sentences" in image for image in images
        ):
            return karpathy.read_records(images)
        if {"images", "annotations"} & {*content}:
            return coco.read_records(content, faults)
    elif content and isinstance(content[0], dict) and has_fields(content[0]):
        return [(f"[{row}]", each) for row, each in enumerate(content)]
    raise not_captions(faults.path, found)
