"""The activation of ALBERT and of the blocks around it."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmt_keras")
def tanh_gelu(x: Any) -> Any:
    """Applies the Gaussian error linear unit in its tanh approximation.

    ALBERT and BERT were trained with the approximation; `"gelu"` names the
    exact function in Keras. It is registered, so that a layer that holds it
    can be saved.

    Args:
        x: float, any shape.

    Returns:
        float, the shape and dtype of `x`.

    Reference:
        [Hendrycks and Gimpel, 2016](https://arxiv.org/abs/1606.08415)
    """
    return keras.activations.gelu(x, approximate=True)
