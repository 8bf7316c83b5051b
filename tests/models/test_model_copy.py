import keras
import numpy as np
import pytest

from bmt_keras.models.lora import add_lora
from bmt_keras.models.model_copy import copy_in_float32, dtype_policy


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
