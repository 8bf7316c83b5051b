"""What several layers check in their constructors and build in themselves."""

from typing import Any

import keras

Shape = tuple[int | None, ...]


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
