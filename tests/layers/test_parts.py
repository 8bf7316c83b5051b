import math

import keras
import numpy as np

from bmt_keras.layers import LengthHead, tanh_gelu


def test_value_is_that_of_the_tanh_approximation():
    inner = math.sqrt(2 / math.pi) * (1.5 + 0.044715 * 1.5**3)
    expected = 0.75 * (1 + math.tanh(inner))
    np.testing.assert_allclose(tanh_gelu(np.float32([1.5])), expected, 1e-6)


def test_activation_survives_serialisation():
    config = keras.activations.serialize(tanh_gelu)
    assert keras.activations.deserialize(config) is tanh_gelu


class HeadOfTwo(LengthHead):
    def __init__(self, scale, **kwargs):
        super().__init__(hidden_dim=2, **kwargs)
        self.scale = scale


def test_config_has_the_arguments_of_a_subclass_and_of_the_layer():
    config = HeadOfTwo(3.0, max_caption_tokens=7, name="two").get_config()
    assert {"scale": 3.0, "max_caption_tokens": 7}.items() <= config.items()
    assert {"name": "two", "trainable": True}.items() <= config.items()
