"""Captions and features of many image files, read ahead of the model.

Captions go into one file, resumed after a stop: rows are appended to a hidden
file next to the asked one as they are written. It is turned into the asked
format and renamed when all images are done.
"""

import csv
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from bmt_keras.atomic import write_atomically
from bmt_keras.captioner.captioner import Captioner
from bmt_keras.captioner.captions import Caption
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.images import decode_images, report_unreadable
from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_COLUMNS = ("file", "caption", "score", "error")


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Lists image files, those in folders and their subfolders among them.

    Args:
        paths: Files, taken as they are, and folders.

    Returns:
        The files; those of a folder in the order of their names.

    Raises:
        InputError: A folder holds no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        # A file that is missing is told when it is read.
        if not path.is_dir():
            found.append(path)
            continue
        images = sorted(
            each
            for each in path.rglob("*")
            if each.suffix.lower() in _SUFFIXES and each.is_file()
        )
        if not images:
            raise InputError(
                f"{path}: expected images ({', '.join(_SUFFIXES)}), found none."
            )
        found += images
    return found


def read_good_images(
    captioner: Captioner,
    images: Sequence[CaptionedImage],
    *,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[CaptionedImage], np.ndarray]:
    """Reads images into features, and leaves out those that are broken.

    Args:
        captioner: The captioner.
        images: The images.
        skip_bad: Only log which images are broken.
        on_progress: Called with images done and images in all.

    Returns:
        The good images and their features, (images, ...), as
        `Captioner.read_features` gives them.

    Raises:
        InputError: No image can be read, or some cannot and are not to be
            skipped.
    """
    features: list[np.ndarray] = []
    errors: list[str] = []
    paths = [each.path for each in images]
    for _, pixels, found in _read_ahead(captioner, paths, 16):
        # A batch may be broken as a whole.
        if len(pixels):
            features.append(captioner.read_features(pixels))
        errors += found
        if on_progress is not None:
            on_progress(len(errors), len(images))
    pairs = list(zip(images, errors, strict=True))
    bad = [f"{image.path} ({error})" for image, error in pairs if error]
    report_unreadable(bad, len(images), skip_bad=skip_bad)
    if not features:
        raise InputError(
            f"Expected images that can be read, found none among {len(images)}."
        )
    good = [image for image, error in pairs if not error]
    return good, np.concatenate(features)


def _read_ahead(
    captioner: Captioner, paths: Sequence[Path], batch_size: int
) -> Iterator[tuple[Sequence[Path], np.ndarray, list[str]]]:
    """Reads images batch by batch, while the model works.

    A batch's paths; pixels of the good images, uint8, (good images, height,
    width, 3); and the errors of all, empty where one is good.
    """
    height, width, _ = captioner.graph.pixels_shape
    start = 0
    for pixels, errors in decode_images(
        paths, height=height, width=width, batch_size=batch_size
    ):
        batch = paths[start : start + len(errors)]
        start += len(errors)
        yield batch, pixels[[not error for error in errors]], errors


# === Captions into a file ===


def caption_to_file(
    captioner: Captioner,
    images: Sequence[Path],
    out: str | Path,
    *,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
    **controls: Any,
) -> list[str]:
    """Writes the captions of images into a file, reading images ahead.

    The same call goes on after a stop. An image that cannot be read has an
    empty caption and an error in its row (no row in COCO's format).

    Args:
        captioner: Writes the captions.
        images: The image files.
        out: `.jsonl` (an object per line: `file`, `caption`, `score`,
            `tokens`, `token_scores`, `confidences`, `error`), `.csv` (`file`,
            `caption`, `score`, `error`) or `.json` (COCO's results:
            `image_id`, the number that the file's name is, and `caption`).
        batch_size: Images at once.
        on_progress: Called with images done and images in all.
        **controls: More arguments of `Captioner.caption`, for one caption
            per image.

    Returns:
        The images that cannot be read, each with its error.

    Raises:
        InputError: The ending is another one, `out` exists, or a file's name
            is no number for COCO's format.
    """
    out = Path(out)
    _check_out(out, images)
    journal = out.with_name(f".{out.name}.partial.jsonl")
    rows = _read_journal(journal)
    left = [path for path in images if str(path) not in rows]
    done = len(images) - len(left)
    if done:
        _LOGGER.info("Going on after %d images.", done)
    out.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as file:
        for batch in _caption(captioner, left, batch_size, controls):
            rows |= {row["file"]: row for row in batch}
            _write_jsonl(file, batch)
            # A kill loses the batch at hand alone.
            file.flush()
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(images))
    # The journal may hold images that are no longer asked for.
    ordered = [rows[str(path)] for path in images]
    with write_atomically(out) as file:
        _WRITERS[out.suffix](file, ordered)
    journal.unlink()
    bad = [row for row in ordered if row["error"]]
    return [f"{row['file']} ({row['error']})" for row in bad]


def _check_out(out: Path, images: Sequence[Path]) -> None:
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


def _read_journal(journal: Path) -> dict[str, dict[str, Any]]:
    """Reads what an earlier call wrote, and cuts off a line half written."""
    if not journal.is_file():
        return {}
    # As bytes: the half of a character is no UTF-8.
    lines = journal.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    with journal.open("r+b") as file:
        file.truncate(sum(map(len, lines)))
    rows = map(json.loads, lines)
    return {row["file"]: row for row in rows}


def _caption(
    captioner: Captioner,
    paths: Sequence[Path],
    batch_size: int,
    controls: Mapping[str, Any],
) -> Iterator[list[dict[str, Any]]]:
    for batch, pixels, errors in _read_ahead(captioner, paths, batch_size):
        captions = iter(captioner.caption(pixels, **controls))
        yield [
            _to_row(path, None if error else next(captions), error)
            for path, error in zip(batch, errors, strict=True)
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
    # The csv module would end lines by \r\n.
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
