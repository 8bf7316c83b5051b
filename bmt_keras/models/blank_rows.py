"""Captions without a word yet: equal ones are computed once."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def compute_blank_once(
    function: Callable[[Any, Any], Any],
    token_ids: Any,
    padding_mask: Any,
    *,
    special_token_ids: Sequence[int],
) -> Any:
    """Calls a function on rows of tokens, but once for equal blank ones.

    Before a word is written, captions of one length read the same, of however
    many photos they will tell. Rows with words are all computed, so that the
    time does not depend on which they are.

    Args:
        function: Maps `token_ids` and `padding_mask` to a tensor, (rows, ...),
            each row of which depends on the same row of the two alone.
        token_ids: int32, (batch, length).
        padding_mask: int32, (batch, length).
        special_token_ids: A row of these alone is blank.

    Returns:
        The tensor, (batch, ...).
    """
    padding_mask = tf.cast(padding_mask, tf.int32)
    is_special = tf.equal(token_ids[..., None], list(special_token_ids))
    is_blank = tf.reduce_all(tf.reduce_any(is_special, -1), -1, keepdims=True)
    number = tf.range(tf.shape(token_ids)[0])[:, None]
    kind = tf.where(is_blank, -1, number)
    rows, index = tf.raw_ops.UniqueV2(
        x=tf.concat([kind, token_ids, padding_mask], axis=1), axis=[0]
    )
    token_ids, padding_mask = tf.split(rows[:, 1:], 2, axis=1)
    return tf.gather(function(token_ids, padding_mask), index)
