"""A pretrained masked language model's head, put into the bimodal model."""

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from bmt_keras.models.bimodal_masked_lm import BimodalMaskedLM


@dataclass(frozen=True, eq=False)
class MaskedLMHeadWeights:
    """Weights of the head that turns ALBERT's states into tokens.

    The head is a dense layer, the tanh GELU, a layer normalisation with
    epsilon 1e-12, and the product with the transposed token embedding, which
    is the text tower's own. All are float32.

    Attributes:
        kernel: (hidden_dim, embedding_dim), of the dense layer.
        bias: (embedding_dim,), of the dense layer.
        gamma: (embedding_dim,), of the layer normalisation.
        beta: (embedding_dim,), of the layer normalisation.
        token_bias: (vocabulary_size,), added to the logits.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    gamma: NDArray[np.float32]
    beta: NDArray[np.float32]
    token_bias: NDArray[np.float32]


def load_pretrained_head(
    model: BimodalMaskedLM, head: MaskedLMHeadWeights
) -> None:
    """Makes a fresh bimodal model the pretrained one, whatever the image.

    A fusion that is the head's dense layer takes its weights into the rows of
    the token states, and zeros into those of the image. With another, such as
    a `CrossAttentionFusion` whose gates start at zero, the model's head takes
    them all. Either way training lets the image in from the first step.

    Args:
        model: Not trained yet, with the text tower that the head belongs to.
        head: The pretrained weights.

    Raises:
        ValueError: The sizes differ from the model's, or the fusion has an
            activation of its own.
    """
    width: tuple[int, ...] = (model.text_tower.embedding_dim,)
    shapes = dict.fromkeys(("bias", "gamma", "beta"), width)
    shapes["kernel"] = (model.text_tower.hidden_dim, *width)
    shapes["token_bias"] = (model.text_tower.vocabulary_size,)
    # Before anything is assigned: a refused head changes nothing.
    for name, shape in shapes.items():
        found = getattr(head, name).shape
        if found != shape:
            raise ValueError(
                f"`head.{name}` must have the shape {shape} of the model's "
                f"text tower. Received: shape={found}."
            )
    dense = model.fusion if model.fusion.is_projection else model.head.dense
    if dense.activation is not keras.activations.linear:
        raise ValueError(
            "`fusion` must have no activation to take a pretrained head. "
            f"Received: activation={dense.activation}."
        )
    # With zeros for the image a projection gives the pretrained head's states.
    image_rows = dense.kernel.shape[0] - head.kernel.shape[0]
    dense.kernel.assign(np.pad(head.kernel, ((0, image_rows), (0, 0))))
    dense.bias.assign(head.bias)
    model.head.layer_norm.gamma.assign(head.gamma)
    model.head.layer_norm.beta.assign(head.beta)
    model.head.bias.assign(head.token_bias)
