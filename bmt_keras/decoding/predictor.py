"""The model as decoding sees it: what may stand at some positions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from bmt_keras.decoding.canvas import (
    LAST,
    NEVER,
    SpecialTokens,
    padding_mask_of,
    positions_in,
)


class ExpectedTokens(NamedTuple):
    """What is known of each image's captions before one is written.

    Attributes:
        probabilities: float32, (images, vocabulary_size), the share of an
            image's captions that is expected to hold each token.
        rarity: float32, (vocabulary_size,), how much a token counts where
            captions are compared, not negative: the rarer, the more.
    """

    probabilities: Any
    rarity: Any


class TokenPredictor:
    """Asks a callable for what may stand at positions of a canvas.

    Args:
        predict_logits: Maps `token_ids` and `padding_mask`, both int32,
            (images, candidates, length), and the keyword `mask_positions`,
            int32, (images, candidates, positions), to the logits there, float,
            (images, candidates, positions, vocabulary_size).
        special: The special tokens.
        vocabulary_size: Number of tokens.
        expected: What is known of the images' captions, if anything.
    """

    def __init__(
        self,
        predict_logits: Callable[..., Any],
        special: SpecialTokens,
        *,
        vocabulary_size: int,
        expected: ExpectedTokens | None = None,
    ) -> None:
        self.special = special
        self.vocabulary_size = vocabulary_size
        self.expected = expected
        self._predict_logits = predict_logits
        self._banned = _table(vocabulary_size, special.banned, NEVER)
        self._continuing = _table(vocabulary_size, special.continuing, LAST)

    @property
    def num_writable(self) -> int:
        """Number of tokens that may be written."""
        return self.vocabulary_size - len(set(self.special.banned))

    def likeliest_at(
        self,
        token_ids: Any,
        positions: Any,
        count: int,
        *,
        is_start: Any = None,
    ) -> tuple[Any, Any]:
        """The likeliest tokens that may be written at some positions.

        Of `token_ids` and `positions`, int32, (images, candidates, positions),
        token ids and their log-probabilities, float32, (images, candidates,
        positions, count), the likeliest first. The probabilities are the
        model's own, banned tokens included. Where `is_start`, tokens that go on
        with a word come last.
        """
        logits = self._logits_at(token_ids, positions)
        ban = ops.convert_to_tensor(self._banned)
        if is_start is not None:
            begins = ops.take_along_axis(is_start, positions, axis=-1)
            ban += ops.where(begins[..., None], self._continuing, 0.0)
        total = ops.logsumexp(logits, axis=-1, keepdims=True)
        values, tokens = ops.top_k(logits + ban, count)
        return ops.cast(tokens, "int32"), values - total

    def log_probs_at(self, token_ids: Any, positions: Any, tokens: Any) -> Any:
        """The log-probabilities of given tokens at some positions.

        Of `tokens`, int32, (images, candidates, positions, tokens), float32 of
        the same shape.
        """
        logits = self._logits_at(token_ids, positions)
        total = ops.logsumexp(logits, axis=-1, keepdims=True)
        return ops.take_along_axis(logits, tokens, axis=-1) - total

    def _logits_at(self, token_ids: Any, positions: Any) -> Any:
        mask = padding_mask_of(token_ids, self.special)
        logits = self._predict_logits(token_ids, mask, mask_positions=positions)
        return ops.cast(logits, "float32")


def _table(size: int, token_ids: tuple[int, ...], value: float) -> Any:
    """The value at some tokens, else 0: float32, (size,)."""
    table = np.zeros((size,), np.float32)
    table[list(token_ids)] = value
    return table


def gather_positions(chosen: Any) -> Any:
    """The positions where `chosen` is True, before any others.

    Of bool, (images, candidates, width), int32, (images, candidates,
    positions): as many as the candidate with most of them has, at least one.
    """
    counts = ops.sum(ops.cast(chosen, "int32"), axis=-1)
    positions, width = positions_in(chosen), ops.shape(chosen)[-1]
    key = ops.where(chosen, positions, positions + width)
    order = ops.argsort(key, axis=-1)
    return ops.cast(order, "int32")[..., : ops.max(counts, initial=1)]


def spread_to_positions(values: Any, chosen: Any) -> Any:
    """Undoes `gather_positions` for values of the chosen positions.

    Of (images, candidates, positions, size), (images, candidates, width,
    size); what stands at the other positions means nothing.
    """
    index = ops.cumsum(ops.cast(chosen, "int32"), axis=-1) - 1
    index = ops.maximum(index, 0)[..., None]
    return ops.take_along_axis(values, index, axis=2)
