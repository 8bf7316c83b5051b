"""Tests of `compute_blank_once`."""

import numpy as np
import tensorflow as tf

from bmt_keras.models.blank_rows import compute_blank_once

# 0 padding, 1 and 2 the frame, 4 the mask.
SPECIAL = [0, 1, 2, 4]
IDS = np.array(
    [[1, 4, 2, 0], [1, 9, 2, 0], [1, 4, 2, 0], [1, 4, 2, 0], [1, 9, 2, 0]],
    "int32",
)
MASK = np.array(
    [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]],
    "int32",
)


def compute(function, token_ids=IDS, padding_mask=MASK):
    return compute_blank_once(
        function,
        tf.convert_to_tensor(token_ids),
        tf.convert_to_tensor(padding_mask),
        special_token_ids=SPECIAL,
    )


def test_equal_blank_rows_are_computed_once():
    seen = []

    def add(token_ids, padding_mask):
        seen.append((token_ids, padding_mask))
        return tf.cast(token_ids * 10 + padding_mask, "float32")[..., None]

    result = compute(add)
    np.testing.assert_array_equal(result[..., 0], IDS * 10 + MASK)
    ((token_ids, padding_mask),) = seen
    # The fourth has another mask than the first, the last two have a word.
    np.testing.assert_array_equal(token_ids, IDS[[0, 1, 3, 4]])
    np.testing.assert_array_equal(padding_mask, MASK[[0, 1, 3, 4]])


def test_no_rows_are_no_rows():
    assert compute(tf.add, IDS[:0], MASK[:0]).shape == (0, 4)


def test_number_of_rows_and_tokens_may_be_unknown():
    spec = tf.TensorSpec((None, None), "int32")
    function = tf.function(
        lambda ids, mask: compute(tf.add, ids, mask),
        input_signature=[spec, spec],
    )
    np.testing.assert_array_equal(
        function(tf.constant(IDS), tf.constant(MASK)), IDS + MASK
    )
