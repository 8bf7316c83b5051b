"""Photos on disk to pixels, read ahead, with the broken ones told apart."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.images import read_pixels_or_error
from bmt_keras.data.untuned import without_tuning
from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)
# Batches read at once, each of four photos at a time.
_READERS = max(2, (os.cpu_count() or 1) // 4)
_NAMED = 5  # so many broken photos are named in a message


def decode_photos(
    photos: Sequence[CaptionedImage],
    *,
    height: int,
    width: int,
    batch_size: int = 16,
) -> Iterator[tuple[Sequence[CaptionedImage], np.ndarray, list[str]]]:
    """Reads photos batch by batch, ahead of the consumer.

    Args:
        photos: The photos.
        height: Wanted height in pixels.
        width: Wanted width in pixels.
        batch_size: Photos in a batch.

    Yields:
        The batch's photos; their pixels, uint8, (batch, height, width, 3); and
        their errors, empty where a photo is good.
    """

    def read_files(indices: np.ndarray) -> np.ndarray:
        files = [_read_file(photos[i].path) for i in indices]
        return np.array(files, dtype=object)

    def read(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        files = tf.numpy_function(read_files, [indices], tf.string)
        return read_pixels_or_error(
            tf.ensure_shape(files, (None,)), height, width
        )

    dataset = (
        tf.data.Dataset.range(len(photos))
        .batch(batch_size)
        .map(read, num_parallel_calls=_READERS)
        .prefetch(_READERS)
    )
    rows = without_tuning(dataset).as_numpy_iterator()
    for step, (pixels, errors) in enumerate(rows):
        batch = photos[step * batch_size : (step + 1) * batch_size]
        messages = [
            error.decode() if photo.path.is_file() else "no such file"
            for photo, error in zip(batch, errors, strict=True)
        ]
        yield batch, pixels, messages


def _read_file(path: Path) -> bytes:
    """A file that cannot be read, or even be named, is empty, so broken."""
    try:
        return path.read_bytes()
    except (OSError, ValueError):
        return b""


def report_unreadable(
    bad: Sequence[str], total: int, *, skip_bad: bool
) -> None:
    """Names photos that cannot be read.

    Args:
        bad: Paths with what is wrong.
        total: Photos in all.
        skip_bad: Only log them.

    Raises:
        InputError: There are some and they are not to be skipped.
    """
    if not bad:
        return
    named = "; ".join(bad[:_NAMED]) + ("; …" if len(bad) > _NAMED else "")
    found = f"{len(bad)} of {total} photos cannot be read: {named}"
    if not skip_bad:
        raise InputError(
            f"{found}. Mend them, or leave them out by --skip-bad."
        )
    _LOGGER.warning("%s. They are left out.", found)
