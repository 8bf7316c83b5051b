"""The model as decoding sees it: logits of the tokens at some places."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from bmt_keras.decoding.canvas import (
    LAST,
    NEVER,
    SpecialTokens,
    padding_mask_of,
    places_of,
)
from bmt_keras.decoding.overlap import FoundTokens
from bmt_keras.layers.positions import take_positions


class TokenPredictor:
    """Asks a callable for what may stand at the places of a canvas.

    Args:
        predict_logits: Maps `token_ids` and `padding_mask`, both int32, (rows,
            width), to logits, float, (rows, width, vocabulary_size).
        special: The special tokens.
        vocabulary_size: Number of tokens.
        at_positions: `predict_logits` takes `mask_positions`, too, int32,
            (rows, positions), and gives the logits there alone, (rows,
            positions, vocabulary_size): nothing is computed for the others.
    """

    def __init__(
        self,
        predict_logits: Callable[..., Any],
        special: SpecialTokens,
        *,
        vocabulary_size: int,
        at_positions: bool = False,
        found: FoundTokens | None = None,
    ) -> None:
        self.special = special
        self.vocabulary_size = vocabulary_size
        self.found = found
        self._predict_logits = predict_logits
        self._at_positions = at_positions

    @property
    def num_writable(self) -> int:
        """Number of tokens that may be written."""
        return self.vocabulary_size - len(set(self.special.banned))

    def ban(self) -> Any:
        """0 for each token that may be written: float32, (vocabulary_size,)."""
        return self._table(self.special.banned, NEVER)

    def ban_at(self, places: Any, *, is_start: Any) -> Any:
        """`ban` where words must begin at some places.

        Args:
            places: int32, (rows, positions).
            is_start: bool, (rows, width), True where a word must begin.

        Returns:
            float32, (rows, positions, vocabulary_size): what goes on with a
            word comes last where one must begin.
        """
        begins = ops.take_along_axis(is_start, places, axis=1)
        continuing = self._table(self.special.continuing, LAST)
        return self.ban() + ops.where(begins[..., None], continuing, 0.0)

    def _table(self, token_ids: tuple[int, ...], value: float) -> Any:
        """The value at some tokens, else 0: float32, (vocabulary_size,)."""
        index = np.array(sorted(set(token_ids)), np.int32)
        table = np.zeros((self.vocabulary_size,), np.float32)
        table[index] = value
        return ops.convert_to_tensor(table)

    def logits_at(self, token_ids: Any, positions: Any) -> Any:
        """The logits at some places.

        Args:
            token_ids: int32, (rows, width).
            positions: int32, (rows, positions).

        Returns:
            float32, (rows, positions, vocabulary_size).
        """
        mask = padding_mask_of(token_ids, self.special)
        if self._at_positions:
            logits = self._predict_logits(
                token_ids, mask, mask_positions=positions
            )
            return ops.cast(logits, "float32")
        logits = self._predict_logits(token_ids, mask)
        return ops.cast(take_positions(logits, positions), "float32")

    def log_probs_at(self, token_ids: Any, positions: Any, tokens: Any) -> Any:
        """The log-probabilities of tokens at some places.

        Args:
            token_ids: int32, (rows, width), what the model sees.
            positions: int32, (rows, positions).
            tokens: int32, (rows, positions, tokens), asked about at each.

        Returns:
            float32, (rows, positions, tokens).
        """
        logits = self.logits_at(token_ids, positions)
        total = ops.logsumexp(logits, axis=-1, keepdims=True)
        return ops.take_along_axis(logits, tokens, axis=-1) - total


def gather_places(chosen: Any) -> Any:
    """The chosen places of each row, before any others.

    Args:
        chosen: bool, (rows, width).

    Returns:
        int32, (rows, positions): as many as the row with most of them has, at
        least one.
    """
    counts = ops.sum(ops.cast(chosen, "int32"), axis=-1)
    places = places_of(ops.shape(chosen)[1])
    width = ops.shape(chosen)[1]
    order = ops.argsort(ops.where(chosen, places, places + width), axis=-1)
    return ops.cast(order, "int32")[:, : ops.max(counts, initial=1)]


def spread_over_places(values: Any, chosen: Any) -> Any:
    """Brings values of the chosen places back to their places.

    Args:
        values: (rows, positions, ...), in the order of `gather_places`.
        chosen: bool, (rows, width).

    Returns:
        (rows, width, ...); what stands at the other places means nothing.
    """
    rank = ops.cumsum(ops.cast(chosen, "int32"), axis=-1) - 1
    index = ops.maximum(rank, 0)
    while len(index.shape) < len(values.shape):
        index = ops.expand_dims(index, -1)
    return ops.take_along_axis(values, index, axis=1)
