"""Captions that anyone wrote, read from a file and matched to their images."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bmt_keras.errors import InputError


def read_results(
    path: Path,
    references: Sequence[tuple[int, str, Sequence[str]]],
    *,
    skip_missing: bool = False,
) -> dict[int, str]:
    """Reads one caption for each image that has captions by people.

    Args:
        path: COCO's results (`.json`), `.jsonl` or `.csv`, with `caption` and
            `image_id`, or else `file_name` or `file`, which may have more or
            fewer folders in front than in `references`. What has an `error`,
            as `bmt caption` writes it, is left out.
        references: Ids, file names and captions of images.
        skip_missing: Whether images may be without a caption.

    Raises:
        InputError: An entry is malformed, or an image is missing, there twice,
            unknown or not told from another.
    """
    names = {key: name for key, name, captions in references if captions}
    ids = {str(key): [key] for key in names}
    by_name = defaultdict(list)
    for key, name in names.items():
        by_name[name.split("/")[-1]].append(key)
    found: dict[int, str] = {}
    repeated, unknown = [], []
    for image, file, caption in _read_entries(path):
        keys = ids.get(str(image), [])
        if image is None:
            alike = by_name[file.split("/")[-1]]
            keys = [key for key in alike if _is_same(file, names[key])]
        if len(keys) != 1:
            unknown.append(file or image)
        elif keys[0] in found:
            repeated.append(file or image)
        else:
            found[keys[0]] = caption
    missing = [f"{names[key]} ({key})" for key in names if key not in found]
    for problem, images in (
        ("that fit none or several of them", unknown),
        ("further ones of an image", repeated),
        ("missing (see --skip-missing)", missing),
    ):
        if images and not (images is missing and skip_missing and found):
            raise InputError(
                f"{path}: expected one caption for each of {len(names)} images "
                f"that have captions by people, found {len(images)} {problem}, "
                f"the first {str(images[0])[:99]}."
            )
    return found


def _is_same(file: str, name: str) -> bool:
    """Whether two paths are alike but for more folders in front of one."""
    return f"/{file}".endswith(f"/{name}") or f"/{name}".endswith(f"/{file}")


def _read_entries(path: Path) -> Iterator[tuple[Any, str, str]]:
    """Gives an entry's image id, if it has one, file and caption."""
    try:
        # A spreadsheet's file may begin with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            # As one array, so that a fault is told with its line.
            text = f"[{text.strip()}]".replace("\n", ",\n")
        table = csv.DictReader(io.StringIO(text))
        rows = list(table) if path.suffix == ".csv" else json.loads(text)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise InputError(
            f"{path}: expected captions (.json, .jsonl or .csv), found a "
            f"fault: {error}."
        ) from error
    if not isinstance(rows, list):
        rows = [rows]
    for number, row in enumerate(rows, start=1):
        values = row if isinstance(row, dict) else {}
        if values.get("error"):
            continue
        image, caption = values.get("image_id"), values.get("caption")
        image = None if image == "" else image
        file = str(values.get("file_name") or values.get("file") or "")
        is_named = image is not None or file
        # CSV's cells beyond the header's are under None.
        if not isinstance(caption, str) or not is_named or None in values:
            raise InputError(
                f"{path}: entry {number}: expected a `caption` (in quotes if "
                "it has a comma) and an `image_id`, `file_name` or `file`, "
                f"found {str(row)[:200]}."
            )
        yield image, file, caption
