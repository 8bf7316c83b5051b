"""What several layers share: checks, parts that they build, an activation."""

import inspect
from typing import Any

import keras

Shape = tuple[int | None, ...]


class ConfiguredLayer(keras.layers.Layer):
    """A layer that keeps its constructor's arguments under their own names."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        kept: dict[str, Any] = {}
        # A subclass may have arguments of its own and pass on the others.
        for layer in type(self).mro():
            if layer is ConfiguredLayer:
                break
            if "__init__" in vars(layer):
                spec = inspect.getfullargspec(vars(layer)["__init__"])
                names = (*spec.args[1:], *spec.kwonlyargs)
                kept |= {k: getattr(self, k) for k in names if hasattr(self, k)}
        config = {
            name: keras.activations.serialize(value)
            if inspect.isfunction(value)
            else keras.saving.serialize_keras_object(value)
            for name, value in kept.items()
        }
        return {**config, **super().get_config()}


def check_positive(**sizes: int) -> None:
    """Raises a ValueError where a size is not positive."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(
                f"`{name}` must be positive. Received: {name}={size}."
            )


def check_share(**shares: float) -> None:
    """Raises a ValueError where a share is not in [0, 1)."""
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(
                f"`{name}` must be in [0, 1). Received: {name}={share}."
            )


def new_dense(
    owner: keras.layers.Layer, name: str, units: Any, shape: Any, **options: Any
) -> keras.layers.Dense:
    """Builds a dense layer for inputs of `shape`, with the owner's dtypes."""
    # Keras gives the layers of a layer the global policy, not their owner's.
    dense = keras.layers.Dense(
        units, name=name, dtype=owner.dtype_policy, **options
    )
    dense.build(shape)
    return dense


def new_norm(
    owner: keras.layers.Layer, name: str, shape: Any, epsilon: float
) -> keras.layers.LayerNormalization:
    """Builds a layer normalisation for inputs of `shape` likewise."""
    norm = keras.layers.LayerNormalization(
        epsilon=epsilon, name=name, dtype=owner.dtype_policy
    )
    norm.build(shape)
    return norm


@keras.saving.register_keras_serializable(package="bmt_keras")
def tanh_gelu(x: Any) -> Any:
    """Applies the Gaussian error linear unit in its tanh approximation.

    ALBERT and BERT were trained with the approximation; `"gelu"` names the
    exact function in Keras. As it is registered, layers with it can be saved.
    `x`: float, any shape; the result has its shape and dtype.

    Reference:
        [Hendrycks and Gimpel, 2016](https://arxiv.org/abs/1606.08415)
    """
    return keras.activations.gelu(x, approximate=True)
