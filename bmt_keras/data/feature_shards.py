"""Shards of features: TFRecord files whose records all have one size.

A record holds the image id (8 bytes, little-endian) and the features of one
photo as raw numbers. As all records of a shard are equally long, the file is
an array of records, too: it is read at random through a memory map, and from
end to end, with its checksums (masked CRC32C), by TensorFlow.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.atomic import write_atomically
from bmt_keras.data.untuned import without_tuning
from bmt_keras.errors import InputError

_BUFFER = 2**20  # bytes read at once from end to end
_READERS = 4  # files read at once


@dataclass(frozen=True)
class ShardLayout:
    """What a record looks like.

    Attributes:
        shape: Shape of the features of one photo.
        dtype: Their type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def payload(self) -> np.dtype[Any]:
        """The data of a record."""
        return np.dtype(
            [
                ("image_id", "<i8"),
                ("features", self.dtype.newbyteorder("<"), self.shape),
            ]
        )

    @property
    def record(self) -> np.dtype[Any]:
        """A record as TFRecord frames it, with lengths and checksums."""
        return np.dtype(
            [
                ("length", "<u8"),
                ("length_checksum", "<u4"),
                *self.payload.descr,
                ("checksum", "<u4"),
            ]
        )


def write_shard(
    path: Path,
    rows: Iterable[tuple[int, np.ndarray]],
    layout: ShardLayout,
) -> None:
    """Writes a shard, which appears whole or not at all.

    Args:
        path: The file.
        rows: Image ids with features.
        layout: Shape and type of the features.
    """
    # The second handle keeps the file hidden, synchronised and renamed.
    with (
        write_atomically(path, "wb") as file,
        tf.io.TFRecordWriter(file.name) as writer,
    ):
        for image_id, features in rows:
            data = np.array((image_id, features), layout.payload)
            writer.write(data.tobytes())


def map_shard(path: Path, layout: ShardLayout) -> np.ndarray:
    """Maps a shard into memory, read-only; nothing is checked but its size.

    Args:
        path: The file.
        layout: Shape and type of the features.

    Returns:
        (rows,) records with the fields `image_id` and `features`.

    Raises:
        InputError: There is no such file, or its size is not that of records.
    """
    if fault := _find_size_fault(path, layout):
        raise spoilt_shard(path, fault)
    if not path.stat().st_size:  # cannot be mapped
        return np.empty(0, layout.record)
    return np.memmap(path, layout.record, mode="r")


def check_shards(
    paths: Sequence[Path], layout: ShardLayout
) -> Iterator[tuple[Path, str]]:
    """Reads shards from end to end and compares all checksums.

    Args:
        paths: The files.
        layout: Shape and type of the features.

    Yields:
        Each file and what is wrong with it, empty where it is sound.
    """
    sizes = {path: _find_size_fault(path, layout) for path in paths}
    yield from ((path, fault) for path, fault in sizes.items() if fault)
    remaining = [path for path, fault in sizes.items() if not fault]
    while remaining:
        misfits = _count_misfits(remaining, layout).as_numpy_iterator()
        for _ in range(len(remaining)):
            path, fault = remaining.pop(0), ""
            try:
                if count := next(misfits):
                    fault = f"{count} records of another length"
            except tf.errors.OpError as err:
                place = re.search(r"\w+ record at \d+", err.message)
                fault = place[0] if place else err.message
            yield path, fault
            if fault:  # an iterator that has failed is not gone on with
                break


def spoilt_shard(path: Path, fault: object) -> InputError:
    """The error that names a shard which cannot be used."""
    return InputError(
        f"{path}: expected a sound shard of features, found a fault ({fault}); "
        "delete this file, and `bmt prepare` computes it anew."
    )


def _find_size_fault(path: Path, layout: ShardLayout) -> str:
    if not path.is_file():
        return "no such file"
    size, unit = path.stat().st_size, layout.record.itemsize
    if not size % unit:
        return ""
    return f"{size} bytes, expected a multiple of {unit}"


def _count_misfits(
    paths: Sequence[Path], layout: ShardLayout
) -> tf.data.Dataset:
    """Counts in each file the records of another length: int64, ()."""
    expected = layout.payload.itemsize

    def add_misfit(count: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        is_misfit = tf.not_equal(tf.strings.length(record), expected)
        return count + tf.cast(is_misfit, tf.int64)

    def count(path: tf.Tensor) -> tf.Tensor:
        records = tf.data.TFRecordDataset(path, buffer_size=_BUFFER)
        return records.reduce(np.int64(0), add_misfit)

    files = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    return without_tuning(files.map(count, num_parallel_calls=_READERS))
