import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.models.lora import add_lora
from bmt_keras.models.precision import (
    copy_in_float32,
    dtype_policy,
    matmul_precision,
    set_matmul_precision,
)

# A private name of TensorFlow's would be taken without an error.
OPTION = "auto_mixed_precision_onednn_bfloat16"


@pytest.fixture(autouse=True)
def _plain_afterwards():
    yield
    set_matmul_precision("float32")


def is_bfloat16():
    return tf.config.optimizer.get_experimental_options().get(OPTION, False)


def test_precision_is_set_for_the_graph_optimizer():
    for name in ("bfloat16", "float32"):
        set_matmul_precision(name)
        assert is_bfloat16() is (name == "bfloat16")


def test_precision_of_a_while_ends_with_it():
    with matmul_precision("bfloat16"):
        assert is_bfloat16()
        with matmul_precision("float32"):
            assert not is_bfloat16()
        assert is_bfloat16()
    assert not is_bfloat16()


@pytest.fixture
def model(small_lm):
    with dtype_policy("mixed_bfloat16"):
        return small_lm(12, compiled=False, concept_dim=4)


def test_policy_holds_within_and_is_set_back_after_an_error():
    before = keras.config.dtype_policy()
    with pytest.raises(KeyError), dtype_policy("mixed_bfloat16"):
        assert keras.layers.Dense(2).compute_dtype == "bfloat16"
        raise KeyError
    assert keras.config.dtype_policy() == before


def test_copy_computes_in_float32_with_the_same_weights(model):
    copy = copy_in_float32(model)
    for one, other in zip(model.weights, copy.weights, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(one, other)
    layers = [*copy._flatten_layers()]
    assert {layer.compute_dtype for layer in layers} <= {"float32", "int32"}
    inputs = {
        "token_ids": np.array([[2, 7, 4, 3]], "int32"),
        "padding_mask": np.ones((1, 4), "int32"),
        "mask_positions": np.array([[2]], "int32"),
        "image_embedding": np.ones((1, 2, 2, 6), "float32"),
    }
    half, full = model(inputs)["logits"], copy(inputs)["logits"]
    assert keras.backend.standardize_dtype(full.dtype) == "float32"
    np.testing.assert_allclose(keras.ops.cast(half, "float32"), full, atol=0.05)
    assert np.abs(keras.ops.cast(half, "float32") - full).max() > 0


def test_copy_of_a_model_with_lora_has_its_factors(model):
    adapted = add_lora(model, 2)
    copy = copy_in_float32(adapted)
    for one, other in zip(adapted.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(one, other)
