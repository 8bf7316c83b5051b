"""How many words the captions get."""

from typing import Any

import tensorflow as tf
from keras import ops

from bmt_keras.decoding.canvas import NEVER


def restrict_lengths(
    length_log_probs: Any, *, length: Any = None, bounds: Any = None
) -> Any:
    """Makes lengths impossible that are not asked for.

    Args:
        length_log_probs: float, (batch, max_caption_length + 1), of each
            number of words.
        length: int32, (batch,), the asked lengths, 0 where free; or None.
        bounds: int32, (2,) or (batch, 2), the shortest and longest length
            asked for; or None.

    Returns:
        float32, (batch, max_caption_length + 1).
    """
    log_probs = ops.cast(length_log_probs, "float32")
    numbers = ops.expand_dims(
        ops.arange(log_probs.shape[-1], dtype="int32"), axis=0
    )
    if length is not None:
        asked = ops.expand_dims(length, -1)
        free = ops.equal(asked, 0)
        kept = ops.logical_or(free, ops.equal(numbers, asked))
        log_probs = ops.where(kept, log_probs, NEVER)
    if bounds is not None:
        bounds = ops.reshape(bounds, (-1, 2))
        kept = ops.logical_and(
            numbers >= bounds[:, :1], numbers <= bounds[:, 1:]
        )
        log_probs = ops.where(kept, log_probs, NEVER)
    return log_probs


def candidate_lengths(
    length_log_probs: Any, *, distinct: int, rows: int
) -> Any:
    """The likeliest lengths of each photo, over and over.

    Args:
        length_log_probs: float32, (batch, max_caption_length + 1); 0 words are
            never written.
        distinct: How many lengths, where so many are possible.
        rows: How many captions are written of each photo.

    Returns:
        int32, (batch, rows).
    """
    distinct = min(distinct, rows, length_log_probs.shape[-1] - 1)
    values, index = ops.top_k(length_log_probs[:, 1:], distinct)
    index = ops.where(values > NEVER / 2, index, index[:, :1])
    return ops.cast(
        ops.take(index + 1, [row % distinct for row in range(rows)], axis=1),
        "int32",
    )


def without_copies(lengths: Any, length_log_probs: Any, *, least: int) -> Any:
    """Leaves out candidates that only repeat a length of each photo.

    Args:
        lengths: int32, (batch, rows), of `candidate_lengths`.
        length_log_probs: float32, (batch, max_caption_length + 1), which they
            come from.
        least: Candidates to leave in at least.

    Returns:
        int32, (batch, candidates): as many as the photo with the most possible
        lengths has, at most `rows`.
    """
    possible = ops.cast(length_log_probs[:, 1:] > NEVER / 2, "int32")
    most = ops.max(ops.sum(possible, axis=-1), initial=least)
    return lengths[:, :most]


def draw_lengths(length_log_probs: Any, *, rows: int, seed: Any) -> Any:
    """Draws lengths of each photo.

    Args:
        length_log_probs: float, (batch, max_caption_length + 1); 0 words are
            never written.
        rows: How many captions are written of each photo.
        seed: int32, (2,).

    Returns:
        int32, (batch, rows).
    """
    drawn = tf.random.stateless_categorical(
        tf.cast(length_log_probs[:, 1:], tf.float32), rows, seed, tf.int32
    )
    return drawn + 1
