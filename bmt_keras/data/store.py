"""Rows that are computed once and kept on disk.

A store is a folder of shards with a manifest that says what the rows depend
on. A shard is an array of rows followed by a checksum, so that it is read at
random through a memory map. Until all shards are there the folder is hidden
beside its place: a run that is killed leaves the shards that it has finished,
and the next run goes on with them.
"""

import fcntl
import json
import logging
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmt_keras.atomic import write_atomically
from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_HASH = re.compile("[0-9a-f]{16,}")  # of what no message could show
# CRC-32: it finds what a disk or a copy has damaged, in less time than reading.
_CHECKSUM_BYTES = 4
_BLOCK_BYTES = 2**20
_READERS = 4  # shards checked at once


@dataclass(frozen=True)
class Shard:
    """A file of a store."""

    path: Path
    number: int  # in the store, from 0
    items: Sequence[Any]  # what its rows are computed from
    row: np.dtype[Any]  # type of a row, with named fields
    key: int  # the checksum starts from it

    def write(self, parts: Iterable[np.ndarray]) -> None:
        """Writes rows, in arrays of any shape: all of them or no file."""
        checksum = self.key
        with write_atomically(self.path, "wb") as file:
            for part in parts:
                data = np.asarray(part, self.row).tobytes()
                checksum = zlib.crc32(data, checksum)
                file.write(data)
            file.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))

    def read(self) -> np.ndarray:
        """Maps the rows into memory, read-only: (rows,)."""
        size = self.path.stat().st_size - _CHECKSUM_BYTES
        count = size // self.row.itemsize
        if not count:  # cannot be mapped
            return np.empty(0, self.row)
        return np.memmap(self.path, self.row, mode="r", shape=(count,))

    def find_fault(self) -> str:
        """Reads the whole file and says what is wrong with it, if anything."""
        if not self.path.exists():
            return "no such file"
        size = self.path.stat().st_size - _CHECKSUM_BYTES
        unit = self.row.itemsize
        if size < 0 or size % unit:
            return f"expected rows of {unit} bytes, found {size} bytes in all"
        checksum = self.key
        with self.path.open("rb") as file:
            while data := file.read(min(_BLOCK_BYTES, size)):
                checksum = zlib.crc32(data, checksum)
                size -= len(data)
            found = int.from_bytes(file.read(), "little")
        return "" if found == checksum else "the checksum is another one"


class ShardedRows:
    """Arrays that are read as if they were one along their first axis.

    Memory-mapped arrays are read at the asked rows alone. Only the first axis
    is indexed, by an integer, a slice or an array; what comes is a copy.

    Args:
        arrays: One at least, equal in type and in all axes but the first.

    Example:
        >>> rows = ShardedRows([np.array([1, 2]), np.array([3])])
        >>> rows[[2, 0]]
        array([3, 1])
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        # Each row that is taken of an `np.memmap` would cost microseconds.
        self._arrays = [np.asarray(array) for array in arrays]
        self._ends = np.cumsum([len(array) for array in arrays])
        self._numbers = np.arange(self._ends[-1])
        self.shape = (len(self), *arrays[0].shape[1:])
        self.dtype = arrays[0].dtype

    def __len__(self) -> int:
        """Rows in all."""
        return len(self._numbers)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads rows, in the order asked for.

        Raises:
            IndexError: There is no such row.
        """
        # NumPy finds out which rows are meant, and refuses what is no index.
        numbers = self._numbers[index]
        flat = numbers.reshape(-1)
        rows = np.empty((len(flat), *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self._ends, flat, side="right")
        for i, (owner, number) in enumerate(zip(owners, flat, strict=True)):
            rows[i] = self._arrays[owner][number - self._ends[owner]]
        return rows.reshape(*numbers.shape, *self.shape[1:])

    def __array__(
        self, dtype: Any = None, copy: bool | None = None
    ) -> np.ndarray:
        """Reads all rows, as `np.asarray` does."""
        if copy is False:
            raise ValueError("`copy` must not be False: rows lie apart.")
        return self[:].astype(dtype or self.dtype, copy=False)


def open_store(
    folder: Path,
    items: Sequence[Any],
    *,
    row: np.dtype[Any],
    settings: Mapping[str, Any],
    shard_size: int,
    compute: Callable[[Sequence[Shard]], None],
) -> list[np.ndarray]:
    """Opens a store, after computing the shards that are lost or damaged.

    Args:
        folder: The store's folder; it appears when all shards are there.
        items: What the rows are computed from, in their order.
        row: Type of a row, with named fields.
        settings: All that the rows depend on, items included, as JSON values.
        shard_size: Items of a shard, where no shard is there yet.
        compute: Writes the shards that it is given. Those that it has written
            when it raises are kept for the next call.

    Returns:
        The rows of each shard, mapped into memory.

    Raises:
        InputError: The folder holds something else, or rows computed with
            other settings, or another process is writing it.
    """
    # As JSON gives it back: tuples are lists there.
    wanted = json.loads(json.dumps({**settings, "row": row.descr}))

    def plan(folder: Path, size: int) -> list[Shard]:
        starts = range(0, len(items), size)
        shards = []
        for number, start in enumerate(starts):
            name = f"{number:05d}-of-{len(starts):05d}.rows"
            # Differs by store and shard: a file in another's place is found.
            key = zlib.crc32(json.dumps([wanted, size, name]).encode())
            own = items[start : start + size]
            shards.append(Shard(folder / name, number, own, row, key))
        return shards

    if folder.exists():
        shards = plan(folder, _read_shard_size(folder, wanted))
        if not any(_find_faults(shards)):
            return [shard.read() for shard in shards]
    with lock_folder(folder):
        hidden = folder.with_name(f".{folder.name}.partial")
        if folder.exists():
            shutil.rmtree(hidden, ignore_errors=True)
            # Who has mapped its shards goes on reading them.
            folder.rename(hidden)
        shard_size = _begin(hidden, wanted, shard_size)
        shards = plan(hidden, shard_size)
        try:
            missing = _find_missing(hidden, shards)
            check_space(
                hidden, row.itemsize * sum(len(x.items) for x in missing)
            )
            compute(missing)
        except BaseException:
            # No shard is worth going on with: leave nothing behind.
            if not any(s.path.exists() and len(s.read()) for s in shards):
                shutil.rmtree(hidden)
            raise
        hidden.rename(folder)
    return [shard.read() for shard in plan(folder, shard_size)]


def _read_shard_size(folder: Path, wanted: Mapping[str, Any]) -> int:
    """Reads how many items a shard has, if the store is the wanted one."""
    try:
        content = json.loads((folder / _MANIFEST).read_bytes())
        settings, shard_size = content["settings"], int(content["shard_size"])
        found = {key: settings.get(key) for key in wanted}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}: expected the folder of a cache, with a sound "
            f"{_MANIFEST}, found none; delete the folder, or give another one."
        ) from error
    if found != wanted:
        raise InputError(
            f"{folder}: the cache was written with other settings: "
            f"{_find_difference(found, wanted)}; delete the folder, or give "
            "another one."
        )
    return shard_size


def _find_difference(found: Any, wanted: Any, name: str = "") -> str:
    """Says what the first setting is that differs."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *found]:
            theirs, ours = (x.get(key, "nothing") for x in (found, wanted))
            if theirs != ours:
                path = f"{name}.{key}".removeprefix(".")
                return _find_difference(theirs, ours, path)
    if isinstance(wanted, str) and _HASH.fullmatch(wanted):
        return f"its `{name}` are others"
    return f"`{name}` is {found!r} there, expected {wanted!r}"


def check_space(path: Path, size: int) -> None:
    """Refuses to begin a file or folder of `size` bytes without room for it."""
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise InputError(
            f"{path}: expected {size / 1e9:.2f} GB of free space, found "
            f"{free / 1e9:.2f} GB; free some, or give another folder."
        )


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Has one process at a time write a folder; a killed one holds nothing.

    Raises:
        InputError: Another process is writing it; the message names it.
    """
    path = folder.with_name(f".{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    # What the holder has written into it must stay.
    with path.open("a+") as file:
        try:
            # The kernel's lock: a killed process leaves none behind.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(file.fileno()).st_nlink:
                raise BlockingIOError  # its holder removed it just now
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"{folder}: another process is writing it ({file.read()}); let "
                "it end, or give another folder."
            ) from error
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        host = socket.gethostname()
        file.write(f"process {os.getpid()} on {host} since {since}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _begin(hidden: Path, wanted: Mapping[str, Any], shard_size: int) -> int:
    try:
        return _read_shard_size(hidden, wanted)
    except InputError:
        # Of other settings, or killed before there was a manifest.
        shutil.rmtree(hidden, ignore_errors=True)
    with write_atomically(hidden / _MANIFEST) as file:
        json.dump({"settings": wanted, "shard_size": shard_size}, file)
    return shard_size


def _find_missing(hidden: Path, shards: Sequence[Shard]) -> list[Shard]:
    """Finds the shards that are to be computed, and removes what is unsound."""
    kept = {hidden / _MANIFEST, *(shard.path for shard in shards)}
    for path in set(hidden.iterdir()) - kept:  # what a killed run has left
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    missing = []
    for shard, fault in zip(shards, _find_faults(shards), strict=True):
        if fault:
            missing.append(shard)
        if fault and shard.path.exists():
            _LOGGER.warning("%s is computed again: %s.", shard.path, fault)
            shard.path.unlink()
    if done := len(shards) - len(missing):
        _LOGGER.info("Going on: %d of %d shards are there.", done, len(shards))
    return missing


def _find_faults(shards: Sequence[Shard]) -> list[str]:
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(Shard.find_fault, shards))
