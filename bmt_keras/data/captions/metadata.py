"""Hugging Face's imagefolder: `metadata.jsonl`, or a table with a header.

So is Kaggle's `captions.txt`, whose commas and quotes are not quoted.
"""

import csv
import io
import json
from collections.abc import Iterator

from bmt_keras.data.captions.rows import (
    CAPTION_FIELDS,
    Faults,
    Record,
    has_fields,
)


def read_lines(text: str, faults: Faults) -> Iterator[Record]:
    """Gives the JSON value of each line."""
    for number, line in enumerate(io.StringIO(text), 1):
        try:
            if line.strip():
                yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError):
            faults.add(f"line {number}", "an object of JSON", line)


def find_delimiter(header: str) -> str | None:
    """Gives what parts the columns of a table of captions, None for others."""
    parted = (x for x in ",\t;|" if has_fields(_columns(_split(header, x))))
    return next(parted, None)


def read_table(text: str, delimiter: str, faults: Faults) -> Iterator[Record]:
    """Gives each row by its columns."""
    rows = iter(_parse(text.lstrip("\r\n"), delimiter))
    columns = _columns(next(rows))
    for number, cells in enumerate(rows, 2):
        if len(cells) > len(columns) and columns[-1] in CAPTION_FIELDS:
            last = len(columns) - 1
            cells = [*cells[:last], delimiter.join(cells[last:])]
        if len(cells) == len(columns):
            yield f"row {number}", dict(zip(columns, cells, strict=True))
        elif any(cells):
            faults.add(f"row {number}", f"{len(columns)} columns", cells)


def _columns(cells: list[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]


def _parse(text: str, delimiter: str) -> list[list[str]]:
    lines = io.StringIO(text, newline="")
    try:
        return list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        # A caption's own quotation mark must not swallow the next lines.
        return [_split(line, delimiter) for line in io.StringIO(text)]


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return line.split(delimiter)
