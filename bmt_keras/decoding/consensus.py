"""The caption that the others resemble most.

A caption that is likely as a whole may be unlike all others that the model
would write. Minimum Bayes risk (Kumar and Byrne 2004; Eikema and Aziz 2022,
arXiv 2108.04718) keeps the one that is expected to be most like a caption of
the photo, where captions written by the model, weighted by how likely they are,
stand for those of people.
"""

from typing import Any

import tensorflow as tf
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
    words = ops.where(is_word, ops.cast(token_ids, "int64"), -1)
    first, second = words[..., :-1], words[..., 1:]
    is_pair = ops.logical_and(first >= 0, second >= 0)
    # No token id has more than 31 bits.
    pairs = ops.where(is_pair, ops.left_shift(first, 31) + second, -1)
    lengths = ops.sum(ops.cast(is_word, "float32"), axis=-1)
    alike = _f1(words, lengths) + _f1(pairs, lengths - 1)
    difference = lengths[:, :, None] - lengths[:, None, :]
    alike *= ops.exp(-(difference**2) / (2 * _LENGTH_DEVIATION**2))
    weights = ops.softmax(_SHARPNESS * ranks)
    return ops.sum(alike * weights[:, None, :], axis=-1)


def _f1(ngrams: Any, counts: Any) -> Any:
    """F1 of different n-grams: float32, (batch, rows, rows).

    Args:
        ngrams: int64, (batch, rows, places), -1 where there is none.
        counts: float32, (batch, rows), n-grams of each caption.
    """
    shared = tf.map_fn(_shared, ngrams, fn_output_signature=tf.float32)
    total = counts[:, :, None] + counts[:, None, :]
    # What a caption says twice it shares once, and has twice.
    return 2.0 * shared / ops.maximum(total, 1.0)


def _shared(ngrams: Any) -> Any:
    """How many different n-grams two captions of a photo share.

    Args:
        ngrams: int64, (rows, places).

    Returns:
        float32, (rows, rows).
    """
    shape = tf.shape(ngrams)
    different, kind = tf.unique(tf.reshape(ngrams, (-1,)))
    row = tf.repeat(tf.range(shape[0]), shape[1])
    has = tf.scatter_nd(
        tf.stack([row, kind], axis=-1),
        tf.ones_like(kind, tf.float32),
        tf.stack([shape[0], tf.size(different)]),
    )
    is_ngram = tf.cast(different >= 0, tf.float32)
    has = tf.minimum(has, 1.0) * is_ngram
    return tf.matmul(has, has, transpose_b=True)
