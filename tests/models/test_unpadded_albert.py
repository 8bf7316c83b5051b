import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.models.lora import find_lora_layers
from bmt_keras.models.precision import dtype_policy
from bmt_keras.models.unpadded_albert import (
    compute_blank_once,
    encode_without_padding,
)

WIDTH = 16
TOKEN_IDS = np.array([[2, 7, 9, 8, 3], [2, 5, 3, 0, 0], [2, 6, 8, 3, 0]])
PADDING_MASK = (TOKEN_IDS > 0).astype("int32")


@pytest.fixture
def make_albert(tiny_albert):
    def make():
        keras.utils.set_random_seed(1)
        tower = tiny_albert(10, num_layers=3, intermediate_dim=24)
        # Fresh biases are zero, and what is small would hide differences.
        for weight in tower.weights:
            weight.assign(keras.random.normal(weight.shape, stddev=0.3))
        return tower

    return make


def encode_with_padding(tower, token_ids, padding_mask):
    return tower(
        {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            "segment_ids": tf.zeros_like(token_ids),
        }
    )["sequence_output"]


def as_tensors():
    return tf.constant(TOKEN_IDS, "int32"), tf.constant(PADDING_MASK)


@pytest.mark.parametrize("lora", [False, True])
def test_states_are_those_of_the_tower(make_albert, lora):
    tower, (token_ids, padding_mask) = make_albert(), as_tensors()
    if lora:
        tower.enable_lora(2)
    for layer in find_lora_layers(tower):
        layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    expected = encode_with_padding(tower, token_ids, padding_mask).numpy()
    states = encode_without_padding(tower, token_ids, padding_mask).numpy()
    used = PADDING_MASK > 0
    np.testing.assert_allclose(states[used], expected[used], 1e-5, 1e-5)


def test_gradients_are_those_of_the_tower(make_albert):
    tower, (token_ids, padding_mask) = make_albert(), as_tensors()
    tower.pooled_dense.trainable = False
    direction = np.random.default_rng(0).normal(size=(*TOKEN_IDS.shape, WIDTH))
    direction = tf.constant(direction * PADDING_MASK[..., None], "float32")
    both = []
    for encode in (encode_with_padding, encode_without_padding):
        with tf.GradientTape() as tape:
            states = encode(tower, token_ids, padding_mask)
            total = tf.reduce_sum(states * direction)
        weights = tower.trainable_weights
        gradients = tape.gradient(total, [w.value for w in weights])
        both.append([tf.convert_to_tensor(g).numpy() for g in gradients])
    assert len(both[0]) == len(tower.weights) - 2
    for expected, gradient in zip(*both, strict=True):
        np.testing.assert_allclose(gradient, expected, 1e-3, 1e-4)


def test_numbers_at_padding_are_finite_even_where_all_is_padding(make_albert):
    tower = make_albert()
    nothing = tf.zeros((2, 5), "int32")
    states = encode_without_padding(tower, nothing, nothing)
    assert states.shape == (2, 5, WIDTH)
    assert np.isfinite(states).all()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_states_have_the_compute_dtype(make_albert, precision):
    with dtype_policy(precision):
        tower, (token_ids, padding_mask) = make_albert(), as_tensors()
        expected = encode_with_padding(tower, token_ids, padding_mask)
        states = encode_without_padding(tower, token_ids, padding_mask)
    assert states.dtype == expected.dtype
    used = PADDING_MASK > 0
    np.testing.assert_allclose(
        states.numpy()[used].astype("float32"),
        expected.numpy()[used].astype("float32"),
        atol=0.1,
    )


# 0 padding, 1 and 2 the frame, 4 the mask.
SPECIAL = [0, 1, 2, 4]
BLANK_IDS = np.array(
    [[1, 4, 2, 0], [1, 9, 2, 0], [1, 4, 2, 0], [1, 4, 2, 0], [1, 9, 2, 0]],
    "int32",
)
BLANK_MASK = np.array(
    [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]],
    "int32",
)


def compute(function, token_ids=BLANK_IDS, padding_mask=BLANK_MASK):
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
    np.testing.assert_array_equal(result[..., 0], BLANK_IDS * 10 + BLANK_MASK)
    ((token_ids, padding_mask),) = seen
    # The fourth has another mask than the first, the last two have a token.
    np.testing.assert_array_equal(token_ids, BLANK_IDS[[0, 1, 3, 4]])
    np.testing.assert_array_equal(padding_mask, BLANK_MASK[[0, 1, 3, 4]])


def test_no_rows_are_no_rows():
    assert compute(tf.add, BLANK_IDS[:0], BLANK_MASK[:0]).shape == (0, 4)


def test_number_of_rows_and_tokens_may_be_unknown():
    spec = tf.TensorSpec((None, None), "int32")
    function = tf.function(
        lambda ids, mask: compute(tf.add, ids, mask),
        input_signature=[spec, spec],
    )
    np.testing.assert_array_equal(
        function(tf.constant(BLANK_IDS), tf.constant(BLANK_MASK)),
        BLANK_IDS + BLANK_MASK,
    )
