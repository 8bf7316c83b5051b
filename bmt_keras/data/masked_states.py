"""States of masked tokens on disk, so that a frozen ALBERT runs only once.

A shard holds the masked tokens of some captions under one masking: the states
in a `.npy` file that is mapped into memory, and beside it a small `.npz` file
that tells what they are of and carries the states' checksum. The small file is
written last: a shard without it was never finished.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bmt_keras.atomic import write_atomically

_COLUMNS = ("captions", "image_ids", "positions", "labels")


@dataclass(frozen=True, eq=False)
class MaskedTokens:
    """Masked tokens, sorted by caption and position.

    Attributes:
        captions: int, (tokens,), index of the caption of each.
        image_ids: int, (tokens,), image id of the caption's photo.
        positions: int, (tokens,), place in the caption.
        labels: int, (tokens,), the token ids that the masks hide.
        states: float32, (tokens, hidden_dim), the encoder's states.
    """

    captions: np.ndarray
    image_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    states: np.ndarray


def write_shard(
    stem: Path, tokens: MaskedTokens, captions: np.ndarray
) -> MaskedTokens:
    """Writes a shard, each file beside its place and then renamed.

    Args:
        stem: Path of the shard without an ending.
        tokens: The masked tokens.
        captions: int, (captions,): all captions of the shard, also those that
            have no token to mask.

    Returns:
        The tokens as `read_shard` gives them.
    """
    _columns_path(stem).unlink(missing_ok=True)
    with write_atomically(_states_path(stem), "wb") as file:
        np.save(file, tokens.states)
    columns = {name: getattr(tokens, name) for name in _COLUMNS}
    with write_atomically(_columns_path(stem), "wb") as file:
        np.savez(
            file,
            **columns,
            all_captions=captions,
            checksum=np.frombuffer(_checksum(_states_path(stem)), np.uint8),
        )
    return replace(tokens, states=_map_states(stem))


def read_shard(
    stem: Path, captions: np.ndarray, hidden_dim: int
) -> MaskedTokens | None:
    """Opens a shard and checks all of it.

    Args:
        stem: Path of the shard without an ending.
        captions: int, (captions,): the captions that it is to be of.
        hidden_dim: Width of its states.

    Returns:
        The tokens, their states mapped into memory; None where there is no
        finished shard.

    Raises:
        ValueError: It is broken, or of other captions.
    """
    if not _columns_path(stem).is_file():
        return None
    try:
        # Opened here: NumPy would leave a broken file open.
        with (
            _columns_path(stem).open("rb") as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            columns = {name: stored[name] for name in _COLUMNS}
            found = stored["all_captions"]
            checksum = stored["checksum"].tobytes()
        states = _map_states(stem)
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as err:
        raise ValueError(f"{stem} cannot be read: {err}") from err
    if not np.array_equal(found, captions):
        raise ValueError(f"{stem} is of other captions")
    shape = (len(columns["captions"]), hidden_dim)
    if states.shape != shape or states.dtype != np.float32:
        raise ValueError(
            f"{stem} has states of {states.shape} {states.dtype}, expected "
            f"{shape} float32"
        )
    if _checksum(_states_path(stem)) != checksum:
        raise ValueError(f"{stem} has states that were changed")
    return MaskedTokens(**columns, states=states)


class MaskedStates:
    """The masked tokens of captions under one masking, found by caption.

    Args:
        shards: Of captions that ascend from shard to shard.
        num_captions: Number of all captions, with those in no shard.
    """

    def __init__(
        self, shards: Sequence[MaskedTokens], num_captions: int
    ) -> None:
        """Finds each caption's first token."""
        captions = np.concatenate([shard.captions for shard in shards])
        self._labels = np.concatenate([shard.labels for shard in shards])
        self._states = [shard.states for shard in shards]
        self._counts = np.bincount(captions, minlength=num_captions)
        self._first = np.cumsum(self._counts) - self._counts
        self._bounds = np.cumsum([0, *(len(s) for s in self._states)])

    @property
    def hidden_dim(self) -> int:
        """Width of the states."""
        return int(self._states[0].shape[1])

    def gather(
        self, captions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads the masked tokens of some captions.

        Args:
            captions: int, (batch,).

        Returns:
            `text_states`, float32, (batch, slots, hidden_dim), zeros after a
            caption's last masked token; `mask_positions`, int32, (tokens,), the
            filled slots of the flattened batch * slots; `labels`, int32,
            (tokens,).
        """
        counts = self._counts[captions]
        slots = max(int(counts.max(initial=0)), 1)
        filled = np.arange(slots) < counts[:, None]  # (batch, slots)
        tokens = (self._first[captions][:, None] + np.arange(slots))[filled]
        states = np.zeros((*filled.shape, self.hidden_dim), np.float32)
        states[filled] = self._read(tokens)
        return (
            states,
            np.flatnonzero(filled).astype(np.int32),
            self._labels[tokens].astype(np.int32),
        )

    def _read(self, tokens: np.ndarray) -> np.ndarray:
        """float32, (tokens, hidden_dim)."""
        shards = np.searchsorted(self._bounds, tokens, side="right") - 1
        states = np.empty((len(tokens), self.hidden_dim), np.float32)
        for shard in np.unique(shards):
            here = shards == shard
            states[here] = self._states[shard][
                tokens[here] - self._bounds[shard]
            ]
        return states


def _states_path(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.npy")


def _columns_path(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.npz")


def _map_states(stem: Path) -> np.ndarray:
    return np.load(_states_path(stem), mmap_mode="r", allow_pickle=False)


def _checksum(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
