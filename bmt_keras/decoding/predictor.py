"""The model as decoding sees it: what may stand at some positions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding.canvas import (
    LAST,
    NEVER,
    gather_positions,
    in_frame,
    padding_mask_of,
    positions_in,
)


class ExpectedTokens(NamedTuple):
    """What is known of each image's captions before one is written."""

    # float32, (images, vocabulary_size), the share of an image's captions that
    # is expected to hold each token
    probabilities: Any
    # float32, (vocabulary_size,), how much a token counts where captions are
    # compared, not negative: the rarer, the more
    rarity: Any


class TokenPredictor:
    """Asks a callable for what may stand at positions of a canvas.

    Args:
        predict_logits: Maps `token_ids` and `padding_mask`, both int32,
            (images, candidates, length), and the keyword `mask_positions`,
            int32, (images, candidates, positions), to the logits there, float,
            (images, candidates, positions, vocabulary_size).
        tokenizer: Tells which tokens are special: they are never written.
        length_log_probs: float32, (images, max_caption_tokens + 1): of each
            number of tokens its log-probability; 0 tokens are never written.
            What writes whole captions and gaps needs them.
        expected: What is known of the images' captions, if anything.
    """

    def __init__(
        self,
        predict_logits: Callable[..., Any],
        tokenizer: CaptionTokenizer,
        *,
        length_log_probs: Any = None,
        expected: ExpectedTokens | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.length_log_probs = length_log_probs
        self.expected = expected
        self._predict_logits = predict_logits
        self._banned = self._table(tokenizer.special_token_ids, NEVER)
        self._continuing = self._table(tokenizer.continuing_token_ids, LAST)

    @property
    def num_writable(self) -> int:
        """Number of tokens that may be written."""
        tokenizer = self.tokenizer
        return tokenizer.vocabulary_size - len(tokenizer.special_token_ids)

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
        token ids and log-probabilities, float32, (images, candidates,
        positions, count), the likeliest first; the probabilities count banned
        tokens, too. Where `is_start`, tokens that go on with a word come last.
        """
        logits, total = self._logits_at(token_ids, positions)
        ban = ops.convert_to_tensor(self._banned)
        if is_start is not None:
            begins = ops.take_along_axis(is_start, positions, axis=-1)
            ban += ops.where(begins[..., None], self._continuing, 0.0)
        values, tokens = ops.top_k(logits + ban, count)
        return ops.cast(tokens, "int32"), values - total

    def log_probs_at(self, token_ids: Any, positions: Any, tokens: Any) -> Any:
        """The log-probabilities of given tokens at some positions.

        float32, as `tokens`, int32, (images, candidates, positions, tokens).
        """
        logits, total = self._logits_at(token_ids, positions)
        return ops.take_along_axis(logits, tokens, axis=-1) - total

    def _logits_at(self, token_ids: Any, positions: Any) -> tuple[Any, Any]:
        """Logits, and what makes log-probabilities of them by subtraction."""
        mask = padding_mask_of(token_ids, self.tokenizer)
        logits = self._predict_logits(token_ids, mask, mask_positions=positions)
        logits = ops.cast(logits, "float32")
        return logits, ops.logsumexp(logits, axis=-1, keepdims=True)

    def _table(self, token_ids: list[int], value: float) -> np.ndarray:
        """The value at some tokens, else 0: float32, (vocabulary_size,)."""
        table = np.zeros((self.tokenizer.vocabulary_size,), np.float32)
        table[token_ids] = value
        return table


# === Given captions ===


def score_tokens(predictor: TokenPredictor, token_ids: Any) -> Any:
    """Pseudo-log-likelihood: each token's log-probability given all others.

    Each token is masked in turn (Salazar et al. 2020, arXiv 1910.14659); all
    these passes are candidates of one call.

    Args:
        predictor: The model.
        token_ids: int32, (images, length) or (images, candidates, length),
            framed and padded; at least one token in the longest.

    Returns:
        float32, as `token_ids`, 0 but at the tokens in the frame.
    """
    if len(token_ids.shape) == 2:
        return score_tokens(predictor, token_ids[:, None])[:, 0]
    images, captions, length = ops.shape(token_ids)
    turns, number = ops.arange(1, length - 1, dtype="int32"), length - 2
    hidden = ops.equal(positions_in(token_ids), turns[:, None])
    mask_token_id = predictor.tokenizer.mask_token_id
    shown = ops.where(hidden, mask_token_id, token_ids[..., None, :])
    # A candidate for each token of each caption.
    shown = ops.reshape(shown, (images, captions * number, length))
    positions = ops.broadcast_to(turns, (images, captions, number))
    positions = ops.reshape(positions, (images, captions * number, 1))
    tokens = ops.reshape(token_ids[..., 1:-1], ops.shape(positions))
    log_probs = predictor.log_probs_at(shown, positions, tokens[..., None])
    log_probs = ops.reshape(log_probs, (images, captions, number))
    log_probs = ops.pad(log_probs, [[0, 0], [0, 0], [1, 1]])
    return ops.where(in_frame(token_ids, predictor.tokenizer), log_probs, 0.0)


def guess_tokens(predictor: TokenPredictor, token_ids: Any) -> tuple[Any, Any]:
    """The likeliest token at each position, none of them special.

    Of `token_ids`, int32, (images, length), token ids, int32, and their
    log-probabilities, float32, of the same shape.
    """
    token_ids = token_ids[:, None]  # one candidate
    positions = positions_in(token_ids)
    positions = ops.broadcast_to(positions, ops.shape(token_ids))
    tokens, log_probs = predictor.likeliest_at(token_ids, positions, 1)
    return tokens[:, 0, :, 0], log_probs[:, 0, :, 0]


def mask_candidates(
    predictor: TokenPredictor,
    token_ids: Any,
    *,
    count: int,
    max_caption_tokens: int,
) -> tuple[Any, Any]:
    """The likeliest tokens at each mask, with all others still masked.

    Of `token_ids`, int32, (images, length), token ids, int32, and their
    probabilities, float32, both (images, max_caption_tokens, count), the first
    mask and the likeliest token first, fewer than `count` if the vocabulary has
    no more. Behind the last mask all are padding, of probability 0.
    """
    tokenizer = predictor.tokenizer
    token_ids = token_ids[:, None]  # one candidate
    is_mask = ops.equal(token_ids, tokenizer.mask_token_id)
    count = min(count, predictor.num_writable)
    tokens, log_probs = predictor.likeliest_at(
        token_ids, gather_positions(is_mask), count, is_start=is_mask
    )
    number = ops.sum(ops.cast(is_mask, "int32"), axis=-1)
    masks = ops.arange(max_caption_tokens, dtype="int32")
    is_used = (masks < number)[..., None]  # (images, masks, 1)

    def pad(values: Any, filler: Any) -> Any:
        images, _, masks, _ = ops.shape(values)
        unused = max_caption_tokens - masks
        padded = ops.pad(values[:, 0], [[0, 0], [0, unused], [0, 0]])
        padded = ops.reshape(padded, (images, max_caption_tokens, count))
        return ops.where(is_used, padded, filler)

    return pad(tokens, tokenizer.pad_token_id), pad(ops.exp(log_probs), 0.0)
