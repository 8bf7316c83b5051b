import keras
import numpy as np
import pytest

from bmt_keras.layers import ImageEmbeddingRepeat

GRID = np.arange(8, dtype="float32").reshape(2, 2, 1, 2)
STATES = np.zeros((2, 3, 5), "float32")


def test_image_is_flattened_and_repeated():
    repeated = ImageEmbeddingRepeat()(GRID, STATES)
    rows = [[[0, 1, 2, 3]] * 3, [[4, 5, 6, 7]] * 3]
    np.testing.assert_array_equal(repeated, rows)


def test_constructor_gives_the_length_without_token_states():
    repeated = ImageEmbeddingRepeat(length=2)(GRID)
    np.testing.assert_array_equal(repeated[1], [[4, 5, 6, 7]] * 2)


def test_token_states_go_before_the_length_of_the_constructor():
    assert ImageEmbeddingRepeat(length=2)(GRID, STATES).shape == (2, 3, 4)


def test_integer_image_is_cast_to_the_compute_dtype():
    layer = ImageEmbeddingRepeat(length=1, dtype="mixed_float16")
    assert layer(GRID.astype("int32")).dtype == "float16"


def test_unknown_image_sizes_are_flattened():
    image = keras.Input((None, 2))
    outputs = ImageEmbeddingRepeat(length=2)(image)
    assert outputs.shape == (None, 2, None)
    repeated = keras.Model(image, outputs)(GRID[:, :, 0])
    np.testing.assert_array_equal(repeated[0], [[0, 1, 2, 3]] * 2)


def test_output_carries_the_mask_of_the_token_states():
    token_ids = np.array([[3, 4, 0], [5, 0, 0]])
    states = keras.layers.Embedding(6, 5, mask_zero=True)(token_ids)
    repeated = ImageEmbeddingRepeat()(GRID, states)
    np.testing.assert_array_equal(repeated._keras_mask, token_ids != 0)
    unmasked = ImageEmbeddingRepeat()(GRID, STATES)
    assert getattr(unmasked, "_keras_mask", None) is None


def test_mask_reaches_later_layers_of_a_model():
    token_ids = keras.Input((None,), dtype="int32")
    image = keras.Input((2, 1, 2))
    states = keras.layers.Embedding(6, 5, mask_zero=True)(token_ids)
    repeated = ImageEmbeddingRepeat()(image, states)
    assert repeated._keras_mask.shape == (None, None)
    outputs = keras.layers.LSTM(2, return_sequences=True)(repeated)
    model = keras.Model([token_ids, image], outputs)
    outputs = model([np.array([[3, 4, 0], [5, 0, 0]]), GRID])
    # A recurrent layer repeats its last output where it is masked.
    np.testing.assert_array_equal(outputs[0, 2], outputs[0, 1])
    assert np.any(outputs[0, 1] != outputs[0, 0])


def test_mask_of_the_image_is_not_that_of_the_output():
    cells = keras.layers.Masking()(np.zeros((2, 4, 3), "float32"))
    repeated = ImageEmbeddingRepeat()(cells, STATES)
    assert getattr(repeated, "_keras_mask", None) is None


def test_length_must_come_from_somewhere():
    with pytest.raises(ValueError, match="`token_states` must be given"):
        ImageEmbeddingRepeat()(GRID)
    with pytest.raises(ValueError, match="`token_states` must be given"):
        ImageEmbeddingRepeat()(keras.Input((4,)))
