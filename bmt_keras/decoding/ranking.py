"""Which of the captions written side by side are kept."""

from typing import Any

from keras import ops

from bmt_keras.decoding.canvas import NEVER
from bmt_keras.decoding.consensus import agreement
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.overlap import FoundTokens, expected_overlap

_SCORE_WEIGHT = 0.2  # of mean log-probabilities beside a consensus


def mean_over(values: Any, counted: Any) -> Any:
    """The mean over the counted places, 0 where there are none: (rows,)."""
    weight = ops.cast(counted, "float32")
    total = ops.sum(values * weight, axis=-1)
    return total / ops.maximum(ops.sum(weight, axis=-1), 1.0)


def rank_captions(
    scores: Any,
    token_ids: Any,
    is_word: Any,
    *,
    options: DecodingOptions,
    found: FoundTokens | None,
) -> Any:
    """How good each caption is among those of its photo.

    Args:
        scores: float32, (batch, rows), mean log-probabilities, that of the
            length added as `options` ask.
        token_ids: int32, (batch, rows, width).
        is_word: bool, (batch, rows, width).
        options: How captions are chosen.
        found: What captions of the photos are expected to hold, if known.

    Returns:
        float32, (batch, rows), more is better.
    """
    ranks = scores
    if options.by_consensus:
        weights = None if found is None else found.weights
        alike = agreement(token_ids, is_word, scores, weights)
        ranks = alike + _SCORE_WEIGHT * scores
    if found is not None and options.overlap_weight:
        overlap = expected_overlap(token_ids, is_word, found)
        ranks += options.overlap_weight * overlap
    return ranks


def best_rows(token_ids: Any, ranks: Any, *, num_captions: Any) -> Any:
    """The best captions of each photo, copies of better ones last.

    Args:
        token_ids: int32, (batch, rows, width).
        ranks: float32, (batch, rows), more is better.
        num_captions: How many to keep, at most `rows`; a number or int32, ().

    Returns:
        int32, (batch, num_captions): rows, the best first.
    """
    if not (isinstance(num_captions, int) and num_captions == 1):
        ranks = ops.where(_is_copy(token_ids, ranks), ranks + NEVER, ranks)
    _, best = ops.top_k(ranks, num_captions)
    return ops.cast(best, "int32")


def take_rows(values: Any, best: Any) -> Any:
    """Takes rows of each photo and lays the photos end to end.

    Args:
        values: (batch, rows) or (batch, rows, width).
        best: int32, (batch, num_captions).

    Returns:
        (batch * num_captions,) or (batch * num_captions, width).
    """
    if len(values.shape) == 2:
        return ops.reshape(ops.take_along_axis(values, best, axis=1), (-1,))
    taken = ops.take_along_axis(values, ops.expand_dims(best, -1), axis=1)
    return ops.reshape(taken, (-1, ops.shape(taken)[-1]))


def _is_copy(token_ids: Any, ranks: Any) -> Any:
    """True at captions that a better or an earlier row has: (batch, rows)."""
    same = ops.all(
        ops.equal(token_ids[:, :, None, :], token_ids[:, None, :, :]), axis=-1
    )
    own, other = ranks[:, :, None], ranks[:, None, :]
    rows = ops.arange(ops.shape(token_ids)[1])
    earlier = rows[None, None, :] < rows[None, :, None]
    goes_before = ops.logical_or(
        other > own, ops.logical_and(ops.equal(other, own), earlier)
    )
    return ops.any(ops.logical_and(same, goes_before), axis=-1)
