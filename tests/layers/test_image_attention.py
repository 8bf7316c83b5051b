import keras
import numpy as np
import pytest

from bmt_keras.layers import ImageAttention

RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(2, 3, 8)).astype(np.float32)
CELLS = RNG.normal(size=(2, 5, 8)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_kept_keys_and_values_give_what_the_layer_gives(dtype):
    keras.utils.set_random_seed(0)
    attention = ImageAttention(2, 4, dtype=dtype)
    plain = attention(STATES, CELLS)
    keys, values = attention.project_image(CELLS)
    assert keys.shape == values.shape == (2, 5, 2, 4)
    for states, expected in ((STATES, plain), (STATES[:, :1], plain[:, :1])):
        np.testing.assert_allclose(
            attention.attend(states, keys, values), expected, rtol=1e-3
        )


def test_it_has_the_weights_of_multi_head_attention():
    attention = ImageAttention(2, 4)
    parent = keras.layers.MultiHeadAttention(2, 4)
    for layer in (attention, parent):
        layer.build(STATES.shape, CELLS.shape)
    parent.set_weights(attention.get_weights())
    np.testing.assert_array_equal(
        parent(STATES, CELLS), attention(STATES, CELLS)
    )
