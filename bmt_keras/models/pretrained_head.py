"""A pretrained masked language model's head, put into the bimodal model."""

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from bmt_keras.layers import BimodalFusion
from bmt_keras.models.bimodal_masked_lm import BimodalMaskedLM


@dataclass(frozen=True, eq=False)
class MaskedLMHeadWeights:
    """Weights of the head that turns ALBERT's states into tokens.

    The head is a dense layer, the tanh GELU, a layer normalisation with
    epsilon 1e-12, and the product with the transposed token embedding, which
    is the encoder's own.

    Attributes:
        kernel: float32, (hidden_dim, embedding_dim), of the dense layer.
        bias: float32, (embedding_dim,), of the dense layer.
        gamma: float32, (embedding_dim,), of the layer normalisation.
        beta: float32, (embedding_dim,), of the layer normalisation.
        token_bias: float32, (vocabulary_size,), added to the logits.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    gamma: NDArray[np.float32]
    beta: NDArray[np.float32]
    token_bias: NDArray[np.float32]


def load_pretrained_head(
    model: BimodalMaskedLM, head: MaskedLMHeadWeights
) -> None:
    """Makes a fresh bimodal model the pretrained one, whatever the photo.

    A `BimodalFusion` takes the head's dense layer into the kernel's rows of
    the token states, and zeros into those of the image. With a
    `CrossAttentionFusion`, whose gates start at zero, the model's head takes
    it all. Either way training lets the photo in from the first step.

    Args:
        model: Not trained yet, with the encoder that the head belongs to.
        head: The pretrained weights.

    Raises:
        ValueError: The sizes differ from the model's, or a `BimodalFusion` has
            an activation of its own.
    """
    _check_shapes(model.text_tower, head)
    kernel, dense = head.kernel, model.fusion
    if isinstance(model.fusion, BimodalFusion):
        if model.fusion.activation is not keras.activations.linear:
            raise ValueError(
                "`fusion` must have no activation to take a pretrained head. "
                f"Received: activation={model.fusion.activation}."
            )
        image_rows = ((0, model.fusion.image_dim), (0, 0))
        kernel = np.pad(kernel, image_rows)
    else:
        dense = model.head.dense
    dense.kernel.assign(kernel)
    dense.bias.assign(head.bias)
    model.head.layer_norm.gamma.assign(head.gamma)
    model.head.layer_norm.beta.assign(head.beta)
    model.head.bias.assign(head.token_bias)


def _check_shapes(encoder: keras.Model, head: MaskedLMHeadWeights) -> None:
    width = (encoder.embedding_dim,)
    shapes = {
        "kernel": (encoder.hidden_dim, *width),
        "bias": width,
        "gamma": width,
        "beta": width,
        "token_bias": (encoder.vocabulary_size,),
    }
    for name, shape in shapes.items():
        found = getattr(head, name).shape
        if found != shape:
            raise ValueError(
                f"`head.{name}` must have the shape {shape} of the model's "
                f"text encoder. Received: shape={found}."
            )
