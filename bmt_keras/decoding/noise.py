"""The random numbers of draws."""

from typing import Any

import tensorflow as tf
from keras import ops


def noise_at(places: Any, *, size: int, seed: Any) -> Any:
    """Draws numbers at the places of each row.

    Args:
        places: int32, (rows, positions).
        size: Numbers at each place.
        seed: int32, (2,).

    Returns:
        float32, (rows, positions, size), in (0, 1).
    """
    return _uniform((*tf.unstack(tf.shape(places)), size), seed)


def shared_noise_at(
    places: Any, *, rows: int, width: int, size: int, seed: Any
) -> Any:
    """Draws numbers that are the same for each photo, whatever its batch.

    Args:
        places: int32, (batch * rows, positions), those of a photo neighbours.
        rows: Rows of a photo; they draw apart from each other.
        width: Places of the widest canvas there may be.
        size: Numbers at each place.
        seed: int32, (2,).

    Returns:
        float32, (batch * rows, positions, size), in (0, 1).
    """
    noise = _uniform((rows * width, size), seed)
    row = ops.arange(ops.shape(places)[0]) % rows
    return ops.take(noise, places + width * row[:, None], axis=0)


def _uniform(shape: Any, seed: Any) -> Any:
    return tf.random.stateless_uniform(
        shape, seed, minval=1e-20, dtype=tf.float32
    )
