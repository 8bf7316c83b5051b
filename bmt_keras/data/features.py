"""What a model sees of each image, computed once and kept on disk.

Embeddings of a frozen image tower, else the decoded and resized pixels.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.images import (
    PREPROCESSING_VERSION,
    decode_images,
    report_unreadable,
)
from bmt_keras.data.store import Shard, ShardedRows, open_store
from bmt_keras.errors import InputError

SHARD_SIZE = 1024  # images: what a killed run loses at most


@dataclass(frozen=True)
class FeatureSource:
    """A recipe for features."""

    height: int  # in pixels, to which images are resized
    width: int
    # (batch, height, width, 3) uint8 to (batch, ...) float; None keeps pixels.
    encode: Callable[[np.ndarray], np.ndarray] | None = None
    embedding_shape: tuple[int, ...] | None = None  # of one image, if encoded
    # JSON values that tell one encoder from another, as its weights' hash.
    encoder_settings: Mapping[str, Any] | None = None
    batch_size: int = 16  # images that are encoded at once

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one image."""
        return self.embedding_shape or (self.height, self.width, 3)

    @property
    def row(self) -> np.dtype[Any]:
        """What is kept of an image: pixels as uint8, embeddings as float16."""
        dtype = "u1" if self.encode is None else "<f2"
        # The features first, where their addresses are aligned.
        return np.dtype([("features", dtype, self.shape), ("image_id", "<i8")])

    @property
    def settings(self) -> dict[str, Any]:
        """What a cache of these features depends on, besides the images."""
        return {
            "height": self.height,
            "width": self.width,
            "preprocessing_version": PREPROCESSING_VERSION,
            "encoder": dict(self.encoder_settings or {}) or None,
        }


@dataclass(frozen=True)
class ImageFeatures:
    """Features of images: uint8 pixels or float16 embeddings."""

    array: np.ndarray | ShardedRows  # (images, ...), read when asked for
    rows: dict[int, int]  # the row of each image id


# Fills shards: `write_features`, or the same on other machines.
FeatureWriter = Callable[..., list[str]]


def write_features(
    shards: Sequence[Shard],
    source: FeatureSource,
    *,
    skip_bad: bool,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Computes the features of the shards' images and writes them.

    Images that cannot be read are left out, or, without `skip_bad`, the shards
    from the first of them on. `on_progress` gets images done and in all.

    Returns:
        What is wrong with each image that cannot be read.
    """
    # Read ahead across the shards' bounds: the tower waits between no two.
    images = [image for shard in shards for image in shard.items]
    computed = _compute(images, source, skip_bad, on_progress)
    bad: list[str] = []

    def take_good(count: int) -> Iterator[np.ndarray]:
        for row, fault in itertools.islice(computed, count):
            if fault:
                bad.append(fault)
            if row is not None:
                yield row
        # Within the writing: a shard that is broken off leaves no file.
        if bad and not skip_bad:
            raise _UnreadableError

    for shard in shards:
        try:
            shard.write(take_good(len(shard.items)))
        except _UnreadableError:
            # What is left is read only to be named.
            bad += [fault for _, fault in computed if fault]
            break
    return bad


def prepare_features(
    images: Sequence[CaptionedImage],
    source: FeatureSource,
    *,
    folder: str | Path,
    skip_bad: bool = False,
    shard_size: int = SHARD_SIZE,
    writer: FeatureWriter = write_features,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageFeatures:
    """Computes the features of images, or opens them where they were kept.

    A run that was killed goes on at its first unfinished shard; a shard that
    was deleted or damaged is computed again.

    Args:
        images: The images.
        source: How features are made.
        folder: Where they are kept; it appears when they are all there.
        skip_bad: Leave out images that cannot be read instead of stopping.
        shard_size: Images of a shard, where no shard is there yet.
        writer: Fills the shards.
        on_progress: Called with images done and images to do.

    Returns:
        The features, opened read-only.

    Raises:
        InputError: Images cannot be read (unless skipped), the folder is of
            other images or settings, or another process is writing it.
    """

    def compute(shards: Sequence[Shard]) -> None:
        bad = writer(shards, source, skip_bad=skip_bad, on_progress=on_progress)
        total = sum(len(shard.items) for shard in shards)
        report_unreadable(bad, total, skip_bad=skip_bad)
        if len(bad) == len(images):
            raise InputError(
                "Expected photos that can be read, found none among "
                f"{len(images)}."
            )

    shards = open_store(
        Path(folder),
        images,
        row=source.row,
        settings={"images": _fingerprint(images), **source.settings},
        shard_size=shard_size,
        compute=compute,
    )
    image_ids = np.concatenate([rows["image_id"] for rows in shards]).tolist()
    return ImageFeatures(
        ShardedRows([rows["features"] for rows in shards]),
        {image_id: row for row, image_id in enumerate(image_ids)},
    )


class _UnreadableError(Exception):
    """Ends the writing of a shard which must not be kept."""


def _compute(
    images: Sequence[CaptionedImage],
    source: FeatureSource,
    skip_bad: bool,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[np.ndarray | None, str]]:
    """Gives each image's row, where one is to be written, and its fault."""
    done, halted = 0, False
    left = iter(images)
    for pixels, errors in decode_images(
        [image.path for image in images],
        height=source.height,
        width=source.width,
        batch_size=source.batch_size,
    ):
        good = [not error for error in errors]
        rows: Iterator[np.ndarray] = iter(())
        if any(good) and not halted:
            rows = iter(_encode(pixels[good], source))
        batch = itertools.islice(left, len(errors))
        for image, error in zip(batch, errors, strict=True):
            row = None
            if not error and not halted:
                row = np.array((next(rows), image.image_id), source.row)
            done += 1
            if on_progress is not None:
                on_progress(done, len(images))
            yield row, f"{image.path} ({error})" if error else ""
        # The whole batch first: its images may be of two shards, of which only
        # the one with the bad image is not written.
        halted = halted or not (skip_bad or all(good))


def _encode(pixels: np.ndarray, source: FeatureSource) -> np.ndarray:
    if source.encode is None:
        return pixels
    features = source.encode(pixels).astype(np.float16)
    if features.shape[1:] != source.shape:
        raise ValueError(
            "`encode` must give `embedding_shape` for each image. Received: "
            f"embedding_shape={source.shape}, shape={features.shape[1:]}."
        )
    return features


def _fingerprint(images: Sequence[CaptionedImage]) -> str:
    # Names and sizes: hashing the files would cost as much as reading them.
    digest = hashlib.sha256()
    for image in images:
        size = image.path.stat().st_size if image.path.is_file() else -1
        line = f"{image.image_id}\t{image.path.name}\t{size}\n"
        digest.update(line.encode(errors="backslashreplace"))
    return digest.hexdigest()
