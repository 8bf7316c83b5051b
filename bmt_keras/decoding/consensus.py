"""The caption that the others resemble most.

A caption that is likely as a whole may be unlike all others that the model
would write. Minimum Bayes risk (Kumar and Byrne 2004; Eikema and Aziz 2022,
arXiv 2108.04718) keeps the one that is expected to be most like a caption of
the photo, where captions written by the model, weighted by how likely they are,
stand for those of people.
"""

from typing import Any

from keras import ops

# A caption counts by the exponential of so many times its mean log-probability.
# Found on validation photos, as is the deviation below.
_SHARPNESS = 2.0
# Where lengths differ by so many words, likeness counts 0.6 times.
_LENGTH_DEVIATION = 4.0


def agreement(token_ids: Any, is_word: Any, ranks: Any) -> Any:
    """How much each caption is like all captions of its photo.

    Two captions are alike by the F1 of their different words and pairs of
    neighbouring words, less where their lengths differ.

    Args:
        token_ids: int32, (batch, rows, width).
        is_word: bool, (batch, rows, width).
        ranks: float32, (batch, rows), mean log-probabilities.

    Returns:
        float32, (batch, rows), in [0, 2].
    """
    lengths = ops.sum(ops.cast(is_word, "float32"), axis=-1)
    same = ops.logical_and(
        ops.equal(
            token_ids[:, :, None, :, None], token_ids[:, None, :, None, :]
        ),
        ops.logical_and(
            is_word[:, :, None, :, None], is_word[:, None, :, None, :]
        ),
    )
    same_pair = ops.logical_and(same[..., :-1, :-1], same[..., 1:, 1:])
    alike = _f1(same, lengths) + _f1(same_pair, lengths - 1)
    difference = lengths[:, :, None] - lengths[:, None, :]
    alike *= ops.exp(-(difference**2) / (2 * _LENGTH_DEVIATION**2))
    weights = ops.softmax(_SHARPNESS * ranks)
    return ops.sum(alike * weights[:, None, :], axis=-1)


def _f1(same: Any, counts: Any) -> Any:
    """F1 of different n-grams: (batch, rows, rows).

    Args:
        same: bool, (batch, rows, rows, n-grams, n-grams), which of one caption
            are those of another.
        counts: float32, (batch, rows), n-grams of each caption.
    """
    # (batch, rows, n-grams, n-grams)
    own = ops.moveaxis(ops.diagonal(same, axis1=1, axis2=2), -1, 1)
    places = ops.arange(ops.shape(same)[-1])
    came_before = ops.logical_and(own, places < places[:, None])
    is_first = ops.logical_not(ops.any(came_before, axis=-1))
    # What a caption says twice it shares once, and has twice.
    shared = ops.logical_and(ops.any(same, axis=-1), is_first[:, :, None, :])
    shared = ops.sum(ops.cast(shared, "float32"), axis=-1)
    total = counts[:, :, None] + counts[:, None, :]
    return 2.0 * shared / ops.maximum(total, 1.0)
