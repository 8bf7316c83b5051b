"""Rows that lie in many arrays, read as if they were one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class ShardedRows:
    """Arrays one after the other along their first axis, which stay apart.

    Memory-mapped arrays are read at the asked rows alone. Only the first axis
    is indexed, by an integer, a slice or an array; what comes is a copy.

    Args:
        arrays: At least one array; equal in type and in all axes but the
            first.

    Example:
        >>> rows = ShardedRows([np.array([1, 2]), np.array([3])])
        >>> rows[[2, 0]]
        array([3, 1])
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        """Numbers the rows."""
        self._arrays = list(arrays)
        self._ends = np.cumsum([len(array) for array in arrays])
        self._numbers = np.arange(self._ends[-1])
        self.shape = (len(self), *arrays[0].shape[1:])
        self.dtype = arrays[0].dtype

    def __len__(self) -> int:
        """Rows in all."""
        return len(self._numbers)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads rows.

        Args:
            index: Integer, slice, or array of integers or booleans.

        Returns:
            The rows, in the order asked for.

        Raises:
            IndexError: There is no such row, or the index is none of these.
        """
        numbers = self._numbers[index]
        flat = numbers.reshape(-1)
        rows = np.empty((len(flat), *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self._ends, flat, side="right")
        for place, (owner, number) in enumerate(zip(owners, flat, strict=True)):
            rows[place] = self._arrays[owner][number - self._ends[owner]]
        return rows.reshape(*numbers.shape, *self.shape[1:])

    def __array__(
        self, dtype: Any = None, copy: bool | None = None
    ) -> np.ndarray:
        """Reads all rows, as `np.asarray` does."""
        if copy is False:
            raise ValueError("`copy` must not be False: rows lie apart.")
        return self[:].astype(dtype or self.dtype, copy=False)
