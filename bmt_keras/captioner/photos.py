"""Photos of several kinds as the model's pixels."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from bmt_keras.caption_graph import CaptionGraph
from bmt_keras.data.images import resize_pixels
from bmt_keras.errors import InputError

Image = str | Path | bytes | np.ndarray

_ROWS = 256  # captions written side by side; more take memory and no less time


def photos_at_once(batch_size: int, rows: int) -> int:
    """How many photos a pass writes captions of.

    Args:
        batch_size: The most.
        rows: Captions written side by side for each photo.
    """
    return min(batch_size, max(1, _ROWS // rows))


class PhotoReader:
    """Reads photos into a graph's pixels, by a graph that is traced once.

    Args:
        graph: Tells the size.
    """

    def __init__(self, graph: CaptionGraph) -> None:
        self._height, self._width, _ = graph.pixels_shape
        self._read = tf.function(
            graph.read_pixels,
            input_signature=[tf.TensorSpec((None,), tf.string)],
        )

    def read_batches(
        self, images: Iterable[Image], batch_size: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Reads photos in batches.

        Args:
            images: Paths, encoded photos, or RGB arrays, uint8, (height, width,
                3).
            batch_size: Photos at once.

        Yields:
            The place of a batch's first photo and the batch's pixels, uint8,
            (batch, height, width, 3).

        Raises:
            InputError: A photo cannot be read; it is named by path or place.
        """
        numbered = enumerate(images)
        while chunk := list(islice(numbered, batch_size)):
            yield chunk[0][0], self._read_batch(chunk)

    def _read_batch(self, chunk: Sequence[tuple[int, Image]]) -> np.ndarray:
        pixels = np.empty((len(chunk), self._height, self._width, 3), np.uint8)
        encoded: dict[int, bytes] = {}
        for row, (place, image) in enumerate(chunk):
            if isinstance(image, np.ndarray):
                pixels[row] = self._resize(image, place)
            else:
                encoded[row] = _read_file(image)
        if encoded:
            decoded, errors = self._read(tf.constant(list(encoded.values())))
            for row, error in zip(encoded, errors.numpy(), strict=True):
                if error:
                    raise InputError(f"{_name(*chunk[row])}: {error.decode()}")
            pixels[list(encoded)] = decoded
        return pixels

    def _resize(self, image: np.ndarray, place: int) -> tf.Tensor:
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"{_name(place, image)}: expected RGB pixels, uint8 (height, "
                f"width, 3), found {image.dtype} {image.shape}."
            )
        return resize_pixels(tf.constant(image), self._height, self._width)


def _read_file(image: str | Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as err:
        raise InputError(
            f"{image}: expected a photo, found no file that can be read."
        ) from err


def _name(place: int, image: Image) -> str:
    if isinstance(image, str | Path):
        return str(image)
    return f"images[{place}]"
