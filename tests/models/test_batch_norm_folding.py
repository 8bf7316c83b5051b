"""Batch normalisation in the convolutions before it."""

import keras
import numpy as np
import pytest

from bmt_keras.models import cut_application, fold_batch_norm, small_cnn

RNG = np.random.default_rng(0)


def scatter_weights(model):
    """Gives every weight a value that a trained model may have."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            scatter_weights(layer)
        else:
            layer.set_weights(
                [RNG.uniform(0.2, 1.0, w.shape) for w in layer.get_weights()]
            )


def norms_of(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from norms_of(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def assert_same(model, *, norms):
    scatter_weights(model)
    before = model.get_weights()
    folded = fold_batch_norm(model)
    assert len(list(norms_of(folded))) == norms
    x = RNG.uniform(0, 255, (2, *model.input_shape[1:])).astype(np.float32)
    wanted = model.predict_on_batch(x)
    found = folded.predict_on_batch(x)
    np.testing.assert_allclose(
        found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max()
    )
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not folded.trainable_weights
    return folded


def stack(*layers, shape=(8, 8, 3)):
    images = keras.Input(shape)
    x = images
    for layer in layers:
        x = layer(x)
    return keras.Model(images, x)


def norm(**options):
    return keras.layers.BatchNormalization(**options)


def test_a_trained_tower_loses_its_norms():
    folded = assert_same(small_cnn(16, 16, channels=8), norms=0)
    assert len(folded.weights) == 2 * 4  # kernels and biases


@pytest.mark.parametrize(
    ("name", "norms"),
    # A depthwise convolution of a mobile model is followed by one, too.
    [("MobileNet", 0), ("ResNet50V2", 17)],
)
def test_norms_of_nested_models_are_folded(name, norms):
    image_tower = cut_application(
        name, "", height=32, width=32, weights="random"
    )
    assert_same(image_tower, norms=norms)


@pytest.mark.parametrize(
    "options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}]
)
@pytest.mark.parametrize(
    "convolution",
    [
        lambda: keras.layers.Conv2D(4, 3, strides=2, use_bias=False),
        lambda: keras.layers.Conv2D(4, 3, padding="same", dilation_rate=2),
        lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
    ],
)
def test_kinds_of_convolutions_and_norms(convolution, options):
    assert_same(stack(convolution(), norm(**options)), norms=0)


@pytest.mark.parametrize(
    "layers",
    [
        (norm(), keras.layers.Conv2D(4, 3)),
        (keras.layers.Conv2D(4, 3, activation="relu"), norm()),
        (keras.layers.SeparableConv2D(4, 3), norm()),
        (keras.layers.Conv2D(8, 3, padding="same"), norm(axis=2)),
    ],
)
def test_a_norm_of_something_else_stays(layers):
    assert_same(stack(*layers), norms=1)


def test_a_norm_stays_where_others_read_the_convolution():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 3, padding="same")(images)
    model = keras.Model(images, keras.layers.Add()([x, norm()(x)]))
    assert_same(model, norms=1)


def test_a_norm_stays_where_the_convolution_is_an_output():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 3)(images)
    model = keras.Model(images, [norm()(x), x])
    scatter_weights(model)
    pixels = RNG.uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
    found = fold_batch_norm(model).predict_on_batch(pixels)
    for one, other in zip(found, model.predict_on_batch(pixels), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_convolution_that_is_used_twice_keeps_its_norms():
    shared = keras.layers.Conv2D(3, 3, padding="same")
    model = stack(shared, norm(), shared, norm())
    assert_same(model, norms=2)


def test_layers_in_sequence_are_folded():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), norm()]
    )
    assert_same(model, norms=0)


def test_what_is_folded_is_saved_loaded_and_given_back(tmp_path):
    folded = fold_batch_norm(small_cnn(16, 16))
    folded.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras")
    assert fold_batch_norm(loaded) is loaded
    x = RNG.uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        loaded.predict_on_batch(x), folded.predict_on_batch(x)
    )


def test_a_model_of_its_own_kind_is_given_back():
    class Doubling(keras.Model):
        def call(self, inputs):
            return 2 * inputs

    model = Doubling()
    assert fold_batch_norm(model) is model
