"""How features are made of photos: decoded, resized and, maybe, embedded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.feature_shards import ShardLayout
from bmt_keras.data.images import PREPROCESSING_VERSION
from bmt_keras.data.photo_reader import decode_photos


@dataclass(frozen=True)
class FeatureSource:
    """A recipe for features.

    Attributes:
        height: Height in pixels to which photos are resized.
        width: Width in pixels.
        encode: (batch, height, width, 3) uint8 to (batch, ...) float; None
            keeps the pixels.
        embedding_shape: Shape of what `encode` gives for one photo.
        encoder_settings: What tells one encoder from another (name, layer,
            hash of the weights), JSON values alone.
        batch_size: Photos that are encoded at once.

    Raises:
        ValueError: An encoder is given without its embedding's shape.

    Example:
        >>> source = FeatureSource(64, 64)
        >>> source.shape, source.dtype
        ((64, 64, 3), dtype('uint8'))
    """

    height: int
    width: int
    encode: Callable[[np.ndarray], np.ndarray] | None = None
    embedding_shape: tuple[int, ...] | None = None
    encoder_settings: Mapping[str, Any] | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Checks that the shape of the features is known ahead."""
        if (self.encode is None) != (self.embedding_shape is None):
            raise ValueError(
                "`encode` and `embedding_shape` must be given together. "
                f"Received: encode={self.encode}, "
                f"embedding_shape={self.embedding_shape}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one photo."""
        return self.embedding_shape or (self.height, self.width, 3)

    @property
    def dtype(self) -> np.dtype:
        """uint8 for pixels, float16 for embeddings."""
        return np.dtype(np.uint8 if self.encode is None else np.float16)

    @property
    def layout(self) -> ShardLayout:
        """How these features lie in a shard."""
        return ShardLayout(self.shape, self.dtype)

    @property
    def settings(self) -> dict[str, Any]:
        """What a cache of these features depends on, besides the photos."""
        return {
            "height": self.height,
            "width": self.width,
            "preprocessing_version": PREPROCESSING_VERSION,
            "encoder": dict(self.encoder_settings or {}) or None,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
        }


@dataclass(frozen=True)
class PhotoRow:
    """One photo with its features.

    Attributes:
        photo: The photo.
        features: Its features; None where it cannot be read, and where none
            are computed any more.
        error: What is wrong with it, empty where it is good.
    """

    photo: CaptionedImage
    features: np.ndarray | None
    error: str


def compute_features(
    photos: Sequence[CaptionedImage], source: FeatureSource, *, skip_bad: bool
) -> Iterator[PhotoRow]:
    """Makes features photo by photo; reading goes on while the model works.

    Args:
        photos: The photos.
        source: How features are made.
        skip_bad: Go on after a photo that cannot be read; else the others are
            only read, to tell all that is broken.

    Yields:
        One row a photo, in their order.
    """
    halted = False
    for batch, pixels, errors in decode_photos(
        photos,
        height=source.height,
        width=source.width,
        batch_size=source.batch_size,
    ):
        good = [i for i, error in enumerate(errors) if not error]
        halted = halted or (len(good) < len(batch) and not skip_bad)
        rows = dict[int, np.ndarray]()
        if good and not halted:
            rows = dict(zip(good, _encode(pixels[good], source), strict=True))
        for i, photo in enumerate(batch):
            yield PhotoRow(photo, rows.get(i), errors[i])


def _encode(pixels: np.ndarray, source: FeatureSource) -> np.ndarray:
    if source.encode is None:
        return pixels
    features = source.encode(pixels).astype(source.dtype)
    if features.shape[1:] != source.shape:
        raise ValueError(
            "`encode` must give `embedding_shape` for each photo. Received: "
            f"embedding_shape={source.shape}, shape={features.shape[1:]}."
        )
    return features
