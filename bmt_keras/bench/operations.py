"""How many floating point operations models cannot do without.

A product counts twice, as multiplication and addition. Normalisations,
activations and all else that is not a product of matrices are left out.
"""

import math
from typing import Any

import keras
import numpy as np

from bmt_keras.layers import BimodalFusion
from bmt_keras.models import BimodalMaskedLM


def albert_operations(encoder: keras.Model, rows: int, length: int) -> float:
    """Of ALBERT's states.

    Args:
        encoder: A `keras_nlp.models.AlbertBackbone`.
        rows: Captions.
        length: Tokens of each, padding included.
    """
    hidden = encoder.hidden_dim
    layer = 4 * hidden * hidden + 2 * hidden * encoder.intermediate_dim
    attention = 2 * length * hidden
    projection = encoder.embedding_dim * hidden
    token = encoder.num_layers * (layer + attention) + projection
    return 2.0 * rows * length * token


def fusion_operations(
    model: BimodalMaskedLM, photos: int, rows: int, length: int
) -> float:
    """Of the fusion of tokens' states with photos.

    Args:
        model: The model.
        photos: Photos.
        rows: Captions.
        length: Tokens of each.
    """
    fusion, hidden = model.fusion, model.text_encoder.hidden_dim
    cells, channels = _cells(model)
    if isinstance(fusion, BimodalFusion):
        image = photos * cells * channels
        return 2.0 * fusion.units * (image + rows * length * hidden)
    # Queries and outputs of both attentions, keys and values of the first.
    block = 6 * hidden * hidden + 2 * hidden * fusion.intermediate_dim
    block += 2 * (length + cells) * hidden
    keys_and_values = 2 * hidden * fusion.num_blocks
    image = photos * cells * hidden * (channels + keys_and_values)
    return 2.0 * (image + rows * length * fusion.num_blocks * block)


def head_operations(model: BimodalMaskedLM, positions: float) -> float:
    """Of the vocabulary's logits.

    Args:
        model: The model.
        positions: Places of all rows that are asked about.
    """
    encoder = model.text_encoder
    token = encoder.embedding_dim * encoder.vocabulary_size
    if not isinstance(model.fusion, BimodalFusion):
        token += encoder.hidden_dim * encoder.embedding_dim
    return 2.0 * positions * token


def unpadded_operations(model: BimodalMaskedLM, lengths: np.ndarray) -> float:
    """Of ALBERT on captions without padding.

    Args:
        model: The model.
        lengths: Ordinary tokens of each caption.
    """
    return sum(
        albert_operations(model.text_encoder, 1, int(length) + 2)
        for length in lengths
    )


def learned_operations(
    model: BimodalMaskedLM, rows: int, length: int, positions: float
) -> float:
    """Of a training step's fusion and head, behind a frozen ALBERT.

    Twice what they take forward: weights need gradients, inputs none, and of
    the head's products the inputs alone, for its table is frozen.

    Args:
        model: The model.
        rows: Captions, each with a photo.
        length: Tokens of each.
        positions: Places of all rows that are asked about.
    """
    return 2 * (
        fusion_operations(model, rows, rows, length)
        + head_operations(model, positions)
    )


def image_operations(encoder: keras.Model, photos: int) -> float:
    """Of a convolutional image encoder.

    Args:
        encoder: The encoder.
        photos: Photos.
    """
    return photos * sum(_layer_operations(each) for each in _layers(encoder))


def weight_bytes(model: keras.Model | keras.Layer) -> float:
    """Bytes of all weights."""
    return float(sum(math.prod(each.shape) * 4 for each in model.weights))


def _layers(model: keras.Model) -> list[Any]:
    flat = []
    for layer in model.layers:
        inner = isinstance(layer, keras.Model)
        flat += _layers(layer) if inner else [layer]
    return flat


def _layer_operations(layer: Any) -> float:
    if isinstance(layer, keras.layers.Dense):
        return 2.0 * math.prod(layer.kernel.shape)
    if not hasattr(layer, "kernel_size") or not layer.built:
        return 0.0
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0.0
    places = math.prod(layer.output.shape[1:3])
    return 2.0 * places * math.prod(kernel.shape)


def _cells(model: BimodalMaskedLM) -> tuple[int, int]:
    shape = model.image_embedding_shape
    return math.prod(shape[:-1]), shape[-1]
