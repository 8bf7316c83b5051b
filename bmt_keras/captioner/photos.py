"""Photos of several kinds as the model's pixels."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from bmt_keras.caption_graph import CaptionGraph
from bmt_keras.data.images import resize_pixels
from bmt_keras.errors import InputError

Image = str | Path | bytes | np.ndarray


def load_pixels(image: Image, graph: CaptionGraph, *, place: int) -> np.ndarray:
    """Reads and resizes a photo.

    Args:
        image: A path, an encoded photo, or an RGB array, uint8, (height,
            width, 3).
        graph: Tells the size.
        place: Where among the given photos, for messages.

    Returns:
        uint8, (height, width, 3), of the model's size.

    Raises:
        InputError: The photo cannot be read; it is named by path or place.
    """
    height, width, _ = graph.pixels_shape
    name = f"images[{place}]"
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"{name}: expected RGB pixels, uint8 (height, width, 3), found "
                f"{image.dtype} {image.shape}."
            )
        return np.asarray(resize_pixels(tf.constant(image), height, width))
    if not isinstance(image, bytes):
        name = str(image)
        try:
            image = Path(image).read_bytes()
        except OSError as err:
            raise InputError(
                f"{name}: expected a photo, found no file that can be read."
            ) from err
    pixels, errors = graph.read_pixels(tf.constant([image]))
    if error := errors.numpy()[0].decode():
        raise InputError(f"{name}: {error}")
    return np.asarray(pixels[0])


def read_batches(
    images: Iterable[Image], graph: CaptionGraph, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Reads photos in batches.

    Args:
        images: Photos, as `load_pixels` takes them.
        graph: Tells their size.
        batch_size: Photos at once.

    Yields:
        The place of a batch's first photo and the batch's pixels, uint8,
        (batch, height, width, 3).
    """
    numbered = enumerate(images)
    while chunk := list(islice(numbered, batch_size)):
        pixels = [load_pixels(i, graph, place=place) for place, i in chunk]
        yield chunk[0][0], np.stack(pixels)
