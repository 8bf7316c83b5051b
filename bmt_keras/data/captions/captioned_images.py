"""Images on disk with all their captions, from the rows of any layout."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from bmt_keras.data.captions.layouts import read_rows
from bmt_keras.data.captions.photos import find_photos
from bmt_keras.data.captions.rows import CaptionRow
from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedImage:
    """An image on disk with all its captions."""

    image_id: int
    path: Path
    captions: tuple[str, ...]


def read_captions(
    path: str | Path,
    images: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
) -> list[CaptionedImage]:
    """Reads captions in any layout and finds their images.

    Args:
        path: A file in one of the layouts of `docs/training.md`, plain or
            gzipped, or a folder of photos and texts.
        images: The folder that the file names are relative to.
        split: Which split to read, of a file that has several.
        limit: Keep only the first N images of the file.
        skip_bad: Leave out rows that cannot be used.

    Returns:
        The images in the file's order, each file once, without those that have
        no caption; whether a file can be decoded shows when it is read. Ids
        are the file's where each image has a whole number of its own, else
        running numbers.

    Raises:
        InputError: The file or folder is missing or malformed, or holds none
            of the photos; the message names the file, the row and the field.
    """
    rows = read_rows(path, skip_bad=skip_bad)
    return _collect(_choose(rows, split, path), images, path)[:limit]


def read_texts(
    path: str | Path, *, split: str | None = None, skip_bad: bool = False
) -> list[str]:
    """Reads captions, as `read_captions`, without images.

    Of a file with splits, those of "train" unless another is asked for.
    """
    chosen = _choose(read_rows(path, skip_bad=skip_bad), split, path, "train")
    grouped = _group(row for row in chosen if row.caption is not None)
    return [text for *_, texts in grouped for text in texts]


def read_references(
    path: str | Path, *, split: str | None = None
) -> list[tuple[int, str, tuple[str, ...]]]:
    """Reads ids, file names and captions of images, without the images."""
    grouped = _group(_choose(read_rows(path), split, path))
    return [(key, str(name), texts) for key, name, texts in grouped]


def read_sides(
    captions: str | Path,
    images: str | Path,
    *,
    val_captions: str | Path | None = None,
    val_images: str | Path | None = None,
    val_share: float = 0.2,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> tuple[Sequence[CaptionedImage], Sequence[CaptionedImage]]:
    """Reads training and validation images, or splits one file.

    Of a file with splits, `split` ("train" if None) and "val" are the sides;
    one without is split by image. Arguments are those of `bmt_keras.train`;
    `seed` is that of the split by image.

    Raises:
        InputError: A file is bad, or only one of `val_captions` and
            `val_images` is given.
    """
    rows = read_rows(captions, skip_bad=skip_bad)
    chosen = _choose(rows, split, captions, default="train")
    train = _collect(chosen, images, captions)[:limit]
    if val_captions is not None and val_images is not None:
        captions, images = val_captions, val_images
        rows = read_rows(captions, skip_bad=skip_bad)
    elif val_captions is not None or val_images is not None:
        raise InputError(
            "`val_captions` and `val_images` must be given together. "
            f"Received: val_captions={val_captions}, val_images={val_images}."
        )
    elif all(row.split != "val" for row in rows):
        return split_images(train, val_share, seed=seed)
    chosen = _choose(rows, None, captions, default="val")
    val = _collect(chosen, images, captions)[:limit]
    real = cache(os.path.realpath)
    files = {(real(x.path.parent), x.path.name) for x in train}
    shared = sum((real(x.path.parent), x.path.name) in files for x in val)
    if shared:
        _LOGGER.warning(
            "%d of the %d validation photos are training photos, too: their "
            "scores say little about other photos.",
            *(shared, len(val)),
        )
    return train, val


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


def _choose(
    rows: list[CaptionRow],
    split: str | None,
    source: str | Path,
    default: str | None = None,
) -> list[CaptionRow]:
    """The rows of a split; all of a file with one or none, unless asked for."""
    splits = {row.split for row in rows if row.split is not None}
    if len(splits) < 2 and split is None:
        return rows
    chosen = split or default
    if chosen not in splits:
        raise InputError(
            f"{source}: `split` (--split) must be one of the file's, which are "
            f"{', '.join(sorted(splits))[:99] or 'none'}. Received: "
            f"split={chosen}."
        )
    return [row for row in rows if row.split == chosen]


def _collect(
    rows: list[CaptionRow], folder: str | Path, source: str | Path
) -> list[CaptionedImage]:
    names = dict.fromkeys(row.file_name for row in rows)
    paths = find_photos(Path(folder), names, source=source)
    grouped = _group(rows, paths)
    images = [CaptionedImage(*each) for each in grouped if each[2]]
    if not images:
        raise InputError(f"{source}: expected captions, found none.")
    if len(images) < len(grouped):
        _LOGGER.warning(
            "%s: %d photos have no caption and are left out.",
            *(source, len(grouped) - len(images)),
        )
    return images


def _group(
    rows: Iterable[CaptionRow], paths: Mapping[str, Path] | None = None
) -> list[tuple[int, Path, tuple[str, ...]]]:
    """The id, path and captions of each path, one path for alike names."""
    captions: dict[Path, list[str]] = {}
    ids: dict[Path, int] = {}
    for row in rows:
        path = paths[row.file_name] if paths else Path(row.file_name)
        texts = captions.setdefault(path, [])
        if row.caption is not None:
            texts.append(row.caption)
        if row.image_id is not None:
            ids.setdefault(path, row.image_id)
    if len({*ids.values()}) < len(captions):
        ids = {path: number for number, path in enumerate(captions)}
    return [(ids[path], path, tuple(x)) for path, x in captions.items()]
