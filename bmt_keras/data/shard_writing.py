"""Features of photos into shards, in this process."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from bmt_keras.data.feature_shards import write_shard
from bmt_keras.data.feature_source import (
    FeatureSource,
    PhotoRow,
    compute_features,
)
from bmt_keras.data.photo_reader import report_unreadable
from bmt_keras.data.shard_folder import Shard


class ShardWriter(Protocol):
    """What fills shards: `write_shards`, or the same on other machines."""

    def __call__(
        self,
        shards: Sequence[Shard],
        source: FeatureSource,
        *,
        skip_bad: bool,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        """Writes shards; see `write_shards`."""


def write_shards(
    shards: Sequence[Shard],
    source: FeatureSource,
    *,
    skip_bad: bool,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Computes the features of photos and writes them, shard by shard.

    Photos are read ahead across the shards' bounds, so that the image model
    does not wait between two shards.

    Args:
        shards: The shards.
        source: How features are made.
        skip_bad: Leave out photos that cannot be read.
        on_progress: Called with photos done and photos in all.

    Raises:
        InputError: Photos cannot be read, unless skipped. Shards before the
            first of them have been written.
    """
    photos = [photo for shard in shards for photo in shard.photos]
    bad: list[str] = []
    rows = _count(
        compute_features(photos, source, skip_bad=skip_bad),
        len(photos),
        on_progress,
    )
    for shard in shards:
        own = itertools.islice(rows, len(shard.photos))
        if not fill_shard(shard, own, source, bad, skip_bad=skip_bad):
            # Nothing is written any more; the rest is read to be named.
            bad += [describe_fault(row) for row in rows if row.error]
            break
    report_unreadable(bad, len(photos), skip_bad=skip_bad)


class _Spoilt(Exception):
    """Ends the writing of a shard which must not be kept."""


def fill_shard(
    shard: Shard,
    rows: Iterable[PhotoRow],
    source: FeatureSource,
    bad: list[str],
    *,
    skip_bad: bool,
) -> bool:
    """Writes one shard, unless it has bad photos that are not to be skipped.

    Args:
        shard: The shard.
        rows: Its photos' features; all are taken.
        source: How they were made.
        bad: Takes what is wrong with photos that cannot be read.
        skip_bad: Leave out those photos.

    Returns:
        Whether it was written.
    """

    def good_rows() -> Iterator[tuple[int, np.ndarray]]:
        before = len(bad)
        for row in rows:
            if row.error:
                bad.append(describe_fault(row))
            elif row.features is not None:
                yield row.photo.image_id, row.features
        if len(bad) > before and not skip_bad:
            raise _Spoilt

    try:
        write_shard(shard.path, good_rows(), source.layout)
    except _Spoilt:
        return False
    return True


def describe_fault(row: PhotoRow) -> str:
    """Names a photo that cannot be read and says why."""
    return f"{row.photo.path} ({row.error})"


def _count(
    rows: Iterable[PhotoRow],
    total: int,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[PhotoRow]:
    for done, row in enumerate(rows, start=1):
        if on_progress is not None:
            on_progress(done, total)
        yield row
