"""Batch normalisation folded into the convolutions before it.

At inference a normalisation is a scale and a shift of each channel, which the
convolution's kernel and bias can carry: the same result for a third of the
nodes and weights, and without another pass over memory (Jacob et al. 2018,
arXiv 1712.05877, section 3.2).
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

# Keras has no public names for the class of functional models, nor below for
# the layers within layers and the nodes that say which layer reads which.
from keras.src.models import Functional

_OF_LAYERS = (Functional, keras.Sequential)
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Gives a frozen model for inference whose convolutions also normalise.

    Args:
        model: A functional model, perhaps of other such models; it stays as it
            is. Normalisations that follow no convolution stay, too.

    Returns:
        A frozen copy, which differs by rounding, or `model` if it is not
        functional, or frozen and without anything to fold.
    """
    if not isinstance(model, _OF_LAYERS):
        return model
    outputs = set(_output_layers(model))
    convolutions = {
        norm: convolution
        for norm in model._flatten_layers()
        if (convolution := _convolution_before(norm)) is not None
        and convolution not in outputs
    }
    if not convolutions and not model.trainable:
        return model
    folded = {convolution: norm for norm, convolution in convolutions.items()}
    copies: dict[keras.Layer, keras.Layer] = {}

    def copy(layer: keras.Layer) -> keras.Layer:
        if layer in convolutions:
            return PassOn(name=layer.name)
        config = layer.get_config()
        if layer in folded:
            config["use_bias"] = True
        copies[layer] = type(layer).from_config(config)
        return copies[layer]

    result = keras.models.clone_model(
        model, clone_function=copy, recursive=True
    )
    for layer, copied in copies.items():
        weights = layer.get_weights()
        if layer in folded:
            weights = _fold(layer, folded[layer])
        copied.set_weights(weights)
        if hasattr(copied, "finalize_state"):
            # Normalization computes with what it derives from its weights.
            copied.finalize_state()
    result.trainable = False
    return result


@keras.saving.register_keras_serializable(package="bmt_keras")
class PassOn(keras.layers.Layer):
    """Stands where a normalisation was, which is called with a mask."""

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the inputs."""
        return inputs


def _output_layers(model: keras.Model) -> Iterator[keras.Layer]:
    for tensor in model.outputs:
        yield tensor._keras_history.operation
    for layer in model.layers:
        if isinstance(layer, _OF_LAYERS):
            yield from _output_layers(layer)


def _convolution_before(norm: keras.Layer) -> keras.Layer | None:
    """The convolution whose result nothing but a normalisation reads."""
    if not isinstance(norm, keras.layers.BatchNormalization):
        return None
    if len(norm._inbound_nodes) != 1:
        return None
    (before,) = norm._inbound_nodes[0].parent_nodes
    layer = before.operation
    # Exactly these: a subclass may compute something else.
    if type(layer) not in _CONVOLUTIONS:
        return None
    alone = len(layer._inbound_nodes) == len(layer._outbound_nodes) == 1
    plain = layer.activation is keras.activations.linear
    channels = -1 if layer.data_format == "channels_last" else 1
    same_axis = norm.axis in (channels, channels % 4)
    return layer if alone and plain and same_axis else None


def _fold(layer: keras.Layer, norm: keras.Layer) -> list[np.ndarray]:
    """Kernel and bias of a convolution that also normalises."""

    def read(weight: Any, default: float = 0.0) -> Any:
        # A weight that a layer does without is None.
        return default if weight is None else np.float64(weight.numpy())

    scale = read(norm.gamma, 1.0) / np.sqrt(
        read(norm.moving_variance) + norm.epsilon
    )
    kernel = read(layer.kernel)
    # Depthwise kernels end in (channels, multiplier), others in (…, filters).
    is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    rest = kernel.shape[-2 if is_depthwise else -1 :]
    bias = (read(layer.bias) - read(norm.moving_mean)) * scale
    return [
        np.asarray(kernel * np.reshape(scale, rest), np.float32),
        np.asarray(bias + read(norm.beta), np.float32),
    ]
