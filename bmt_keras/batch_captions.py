"""Captions of many photos into one file, resumed after a stop.

Rows are appended to a hidden file beside the asked one as they are written.
It is turned into the asked format and renamed when all photos are done.
"""

import csv
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from bmt_keras.atomic import write_atomically
from bmt_keras.captioner import Caption, Captioner
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.images import decode_images
from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)
PHOTO_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
FORMATS = (".jsonl", ".csv", ".json")
_COLUMNS = ("file", "caption", "score", "error")


def find_photos(paths: Sequence[str | Path]) -> list[Path]:
    """Lists photo files, those in folders and their subfolders among them.

    Args:
        paths: Files, taken as they are, and folders.

    Returns:
        The files; those of a folder in the order of their names.

    Raises:
        InputError: A folder holds no photo.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        photos = sorted(
            each
            for each in path.rglob("*")
            if each.suffix.lower() in PHOTO_SUFFIXES and each.is_file()
        )
        if not photos:
            raise InputError(
                f"{path}: expected photos ({', '.join(PHOTO_SUFFIXES)}), found "
                "none."
            )
        found += photos
    return found


def caption_to_file(
    captioner: Captioner,
    photos: Sequence[Path],
    out: str | Path,
    *,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
    controls: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes the captions of photos into a file, reading photos ahead.

    The same call goes on after a stop. A photo that cannot be read has an
    empty caption and an error in its row (no row in COCO's format).

    Args:
        captioner: Writes the captions.
        photos: The photo files.
        out: `.jsonl` (an object a line: `file`, `caption`, `score`, `tokens`,
            `token_scores`, `confidences`, `error`), `.csv` (`file`,
            `caption`, `score`, `error`) or `.json` (COCO's results:
            `image_id`, the number that the file's name is, and `caption`).
        batch_size: Photos at once.
        on_progress: Called with photos done and photos in all.
        controls: More arguments of `Captioner.caption`, for one caption a
            photo.

    Returns:
        The photos that cannot be read, each with its error.

    Raises:
        InputError: The ending is another one, `out` exists, or a file's name
            is no number for COCO's format.
    """
    out = Path(out)
    _check_out(out, photos)
    journal = out.with_name(f".{out.name}.partial.jsonl")
    rows = _read_journal(journal)
    left = [path for path in photos if str(path) not in rows]
    done = len(photos) - len(left)
    if done:
        _LOGGER.info("Going on after %d photos.", done)
    out.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as file:
        for batch in _caption_batches(
            captioner, left, batch_size, controls or {}
        ):
            for row in batch:
                rows[row["file"]] = row
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(photos))
    ordered = [rows[str(path)] for path in photos]
    with write_atomically(out) as file:
        _WRITERS[out.suffix](file, ordered)
    journal.unlink()
    return [
        f"{row['file']} ({row['error']})" for row in ordered if row["error"]
    ]


def _check_out(out: Path, photos: Sequence[Path]) -> None:
    if out.suffix not in FORMATS:
        raise InputError(
            f"{out}: expected a file name that ends in {', '.join(FORMATS)}."
        )
    if out.exists():
        raise InputError(
            f"{out}: expected no such file yet, found one; delete it, or give "
            "another name."
        )
    if out.suffix == ".json":
        for path in photos:
            if not path.stem.isdecimal():
                raise InputError(
                    f"{path}: expected a number as the file's name, which is "
                    "the `image_id` of COCO's results; or write .jsonl or .csv."
                )


def _read_journal(journal: Path) -> dict[str, dict[str, Any]]:
    """Reads what an earlier call wrote, and cuts off a line half written."""
    if not journal.is_file():
        return {}
    rows, whole = {}, 0
    content = journal.read_bytes()
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        row = json.loads(line)
        rows[row["file"]] = row
        whole += len(line)
    with journal.open("r+b") as file:
        file.truncate(whole)
    return rows


def _caption_batches(
    captioner: Captioner,
    paths: Sequence[Path],
    batch_size: int,
    controls: Mapping[str, Any],
) -> Iterator[list[dict[str, Any]]]:
    photos = [CaptionedImage(i, path, ()) for i, path in enumerate(paths)]
    settings = captioner.settings
    for batch, pixels, errors in decode_images(
        photos,
        height=settings.image.height,
        width=settings.image.width,
        batch_size=batch_size,
    ):
        good = [i for i, error in enumerate(errors) if not error]
        captions = iter(
            captioner.caption([pixels[i] for i in good], **controls)
        )
        yield [
            _to_row(photo.path, None if error else next(captions), error)
            for photo, error in zip(batch, errors, strict=True)
        ]


def _to_row(path: Path, caption: Caption | None, error: str) -> dict[str, Any]:
    return {
        "file": str(path),
        "caption": caption.text if caption else "",
        "score": caption.score if caption else None,
        "tokens": caption.tokens if caption else (),
        "token_scores": caption.token_scores if caption else (),
        "confidences": caption.confidences if caption else (),
        "error": error,
    }


def _write_jsonl(file: IO[str], rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(file: IO[str], rows: Sequence[dict[str, Any]]) -> None:
    writer = csv.DictWriter(
        file, _COLUMNS, extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)


def _write_coco_results(file: IO[str], rows: Sequence[dict[str, Any]]) -> None:
    results = [
        {"image_id": int(Path(row["file"]).stem), "caption": row["caption"]}
        for row in rows
        if not row["error"]
    ]
    json.dump(results, file, ensure_ascii=False)


_WRITERS: dict[str, Callable[[IO[str], Sequence[dict[str, Any]]], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".json": _write_coco_results,
}
