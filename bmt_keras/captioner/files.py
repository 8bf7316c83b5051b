"""Captions and features of many image files, read ahead of the model."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bmt_keras.captioner.captioner import Captioner
from bmt_keras.captioner.captions import Caption
from bmt_keras.data.caption_files import Journal, Row, check_out
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.images import decode_images
from bmt_keras.errors import InputError
from bmt_keras.image_files import report_unreadable

_LOGGER = logging.getLogger(__name__)


def read_good_images(
    captioner: Captioner,
    images: Sequence[CaptionedImage],
    *,
    skip_bad: bool = False,
    beside: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[CaptionedImage], np.ndarray]:
    """Reads images into features, and leaves out those that are broken.

    With `skip_bad` it logs them; many are listed in a file next to the path
    `beside`. `on_progress` gets images done and in all.

    Returns:
        The good images and their features, (images, ...), as
        `Captioner.read_features` gives them.

    Raises:
        InputError: No image can be read, or one cannot without `skip_bad`.
    """
    features: list[np.ndarray] = []
    errors: list[str] = []
    paths = [each.path for each in images]
    for pixels, found in _read_ahead(captioner, paths, 16):
        # A batch may be broken as a whole.
        if len(pixels):
            features.append(captioner.read_features(pixels))
        errors += found
        if on_progress is not None:
            on_progress(len(errors), len(images))
    pairs = list(zip(images, errors, strict=True))
    bad = [f"{image.path} ({error})" for image, error in pairs if error]
    report_unreadable(bad, len(images), skip_bad=skip_bad, beside=beside)
    if not features:
        raise InputError(
            f"Expected images that can be read, found none among {len(images)}."
        )
    good = [image for image, error in pairs if not error]
    return good, np.concatenate(features)


def _read_ahead(
    captioner: Captioner, paths: Sequence[Path], batch_size: int
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Reads images batch by batch, while the model works.

    A batch's pixels of the good images, uint8, (good images, height, width, 3);
    and the errors of all, empty where one is good.
    """
    for pixels, errors in decode_images(
        paths, captioner.graph.pixel_reader, batch_size=batch_size
    ):
        yield pixels[[not error for error in errors]], errors


# === Captions into a file ===


def caption_to_file(
    captioner: Captioner,
    images: Sequence[Path],
    out: str | Path,
    *,
    source: Mapping[str, Any] = MappingProxyType({}),
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
        source: What the captions depend on besides `controls`, such as the
            captioner's folder; a stopped call of another one is not continued.
        batch_size: Images at once.
        on_progress: Called with images done and images in all.
        **controls: Arguments of `Captioner.caption`, for one caption per image.

    Returns:
        The images that cannot be read, each with its error.

    Raises:
        InputError: The ending is another one, `out` exists, a file's name is
            no number for COCO's format, or a stopped call had another source.
    """
    out = Path(out)
    check_out(out, images)
    journal = Journal(out, {**source, **controls})
    left = [path for path in images if str(path) not in journal.rows]
    done = len(images) - len(left)
    if done:
        _LOGGER.info("Going on after %d images.", done)
    waiting = iter(left)
    for pixels, errors in _read_ahead(captioner, left, batch_size):
        captions = iter(captioner.caption(pixels, **controls))
        journal.append(
            [
                _to_row(next(waiting), None if error else next(captions), error)
                for error in errors
            ]
        )
        done += len(errors)
        if on_progress is not None:
            on_progress(done, len(images))
    bad = [row for row in journal.finish(out, images) if row["error"]]
    return [f"{row['file']} ({row['error']})" for row in bad]


def _to_row(path: Path, caption: Caption | None, error: str) -> Row:
    return {
        "file": str(path),
        "caption": caption.text if caption else "",
        "score": caption.score if caption else None,
        "tokens": caption.tokens if caption else (),
        "token_scores": caption.token_scores if caption else (),
        "confidences": caption.confidences if caption else (),
        "error": error,
    }
