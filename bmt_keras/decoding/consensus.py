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

from bmt_keras.decoding.ngrams import Ngrams, pairs_of, words_of_captions

# A caption counts by the exponential of so many times its mean log-probability.
# Found on validation photos, as is the deviation below.
_SHARPNESS = 1.0
# Where lengths differ by so many words, likeness counts 0.6 times.
_LENGTH_DEVIATION = 4.0


def agreement(
    token_ids: Any, is_word: Any, ranks: Any, token_weights: Any = None
) -> Any:
    """How much each caption is like all captions of its photo.

    Two captions are alike by the F1 of their different words and pairs of
    neighbouring words, less where their lengths differ.

    Args:
        token_ids: int32, (batch, rows, width).
        is_word: bool, (batch, rows, width).
        ranks: float32, (batch, rows), mean log-probabilities.
        token_weights: float32, (vocabulary_size,), how much a token counts,
            not negative; None for 1 of all.

    Returns:
        float32, (batch, rows), in [0, 2].
    """
    words = words_of_captions(token_ids, is_word, token_weights)
    alike = _f1(words) + _f1(pairs_of(words))
    lengths = ops.sum(ops.cast(is_word, "float32"), axis=-1)
    difference = lengths[:, :, None] - lengths[:, None, :]
    alike *= ops.exp(-(difference**2) / (2 * _LENGTH_DEVIATION**2))
    weights = ops.softmax(_SHARPNESS * ranks)
    return ops.sum(alike * weights[:, None, :], axis=-1)


def _f1(ngrams: Ngrams) -> Any:
    """F1 of different n-grams by weight: float32, (batch, rows, rows)."""
    shared = tf.map_fn(_shared, ngrams, fn_output_signature=tf.float32)
    mass = ngrams.mass()
    total = mass[:, :, None] + mass[:, None, :]
    return 2.0 * shared / ops.maximum(total, 1e-6)


def _shared(ngrams: Ngrams) -> Any:
    """Weight of the different n-grams that two captions of a photo share.

    Args:
        ngrams: Of one photo: (rows, places).

    Returns:
        float32, (rows, rows).
    """
    shape = tf.shape(ngrams.ids)
    different, kind = tf.unique(tf.reshape(ngrams.ids, (-1,)))
    row = tf.repeat(tf.range(shape[0]), shape[1])
    has = tf.scatter_nd(
        tf.stack([row, kind], axis=-1),
        tf.ones_like(kind, tf.float32),
        tf.stack([shape[0], tf.size(different)]),
    )
    has = tf.minimum(has, 1.0)
    weights = tf.math.unsorted_segment_max(
        tf.reshape(ngrams.weights, (-1,)), kind, tf.size(different)
    )
    return tf.matmul(has * weights, has, transpose_b=True)
