"""Captions of many images in one file: which images, and how it is written.

Rows are kept in a hidden file next to the asked one, the journal, as they are
written. They are turned into the asked format when all images are done.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from bmt_keras.atomic import write_atomically
from bmt_keras.errors import InputError

Row = dict[str, Any]

_COLUMNS = ("file", "caption", "score", "error")


def check_out(out: Path, images: Sequence[Path]) -> None:
    """Refuses a file that is there, or whose ending says no format.

    Raises:
        InputError: So it is, or an image's name is no number for COCO's format.
    """
    if out.suffix not in _WRITERS:
        raise InputError(
            f"{out}: expected a file name that ends in {', '.join(_WRITERS)}."
        )
    if out.exists():
        raise InputError(
            f"{out}: expected no such file yet, found one; delete it, or give "
            "another name."
        )
    for path in images:
        if out.suffix == ".json" and not path.stem.isdecimal():
            raise InputError(
                f"{path}: expected a number as the file's name, which is "
                "the `image_id` of COCO's results; or write .jsonl or .csv."
            )


class Journal:
    """The rows that calls for one file have written so far, by image file.

    Its first line says what the captions come from, so that a file never holds
    captions of two captioners, or of one with different options.

    Args:
        out: The asked file.
        source: The captioner and the options, by name, as JSON can hold them.

    Raises:
        InputError: The journal is there with another source, or is broken.
    """

    def __init__(self, out: Path, source: Mapping[str, Any]) -> None:
        self.path = out.with_name(f".{out.name}.partial.jsonl")
        # As it will be read: JSON has no tuples.
        self._source = json.loads(json.dumps(source, default=str))
        self.rows: dict[str, Row] = {}
        if self.path.is_file():
            self._read()

    def append(self, rows: Iterable[Row]) -> None:
        """Adds rows; a kill loses those of the call at hand alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = list(rows)
        with self.path.open("a", -1, "utf-8", "backslashreplace") as file:
            _write_jsonl(file, rows if file.tell() else [self._source, *rows])
        self.rows |= {row["file"]: row for row in rows}

    def finish(self, out: Path, images: Sequence[Path]) -> list[Row]:
        """Writes the asked file, removes the journal, and gives the rows."""
        # The journal may hold images that are no longer asked for.
        rows = [self.rows[str(path)] for path in images]
        with write_atomically(out) as file:
            _WRITERS[out.suffix](file, rows)
        self.path.unlink(missing_ok=True)
        return rows

    def _read(self) -> None:
        """Reads earlier calls' lines, and cuts off one that is half written."""
        # As bytes: the half of a character is no UTF-8.
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        try:
            head, *rows = map(json.loads, lines or [b"{}"])
            self.rows = {row["file"]: row for row in rows}
            source = dict(head)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{self.path}: expected captions of a call that was stopped, "
                f"found something else ({error!r}); delete it to begin anew."
            ) from error
        for name in sorted({*source, *self._source} if lines else ()):
            theirs, ours = source.get(name), self._source.get(name)
            if theirs != ours:
                raise InputError(
                    f"{self.path}: the file holds captions of a stopped call, "
                    f"whose `{name}` was {theirs!r}, not {ours!r}; go on with "
                    "the same, delete the file to begin anew, or give another "
                    "--out."
                )
        with self.path.open("r+b") as file:
            file.truncate(sum(map(len, lines)))


def _write_jsonl(file: IO[str], rows: Iterable[Row]) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(file: IO[str], rows: Iterable[Row]) -> None:
    # The csv module would end lines by \r\n; else it quotes no \r.
    rows = list(rows)
    all_quoted = any("\r" in row["file"] for row in rows)
    writer = csv.DictWriter(
        file,
        _COLUMNS,
        extrasaction="ignore",
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL,
    )
    writer.writeheader()
    writer.writerows(rows)


def _write_coco_results(file: IO[str], rows: Iterable[Row]) -> None:
    results = [
        {"image_id": int(Path(row["file"]).stem), "caption": row["caption"]}
        for row in rows
        if not row["error"]
    ]
    json.dump(results, file, ensure_ascii=False)


_WRITERS: dict[str, Callable[[IO[str], Iterable[Row]], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".json": _write_coco_results,
}
