"""The table of layers that the contract tests go over."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest

from bmt_keras import layers

BATCH, LENGTH, HIDDEN, VOCABULARY = 3, 6, 8, 20

# Of each input: its shape after the batch (None: any length), its dtype, and
# the range of its values. Ids below 5 are special tokens.
INPUTS = {
    "pixels": ((4, 5, 3), "float32", (0, 255)),
    "image": ((2, 2, 3), "float32", (0.1, 1)),
    "cells": ((None, HIDDEN), "float32", (0.1, 1)),
    "states": ((None, HIDDEN), "float32", (0.1, 1)),
    "logits": ((None, VOCABULARY), "float32", (0.1, 1)),
    "weight": ((None,), "float32", (0.1, 1)),
    "padding_mask": ((None,), "int32", (0, 2)),
    "positions": ((None,), "int32", (0, LENGTH)),
    "labels": ((None,), "int32", (5, VOCABULARY)),
    "token_ids": ((None,), "int32", (5, VOCABULARY)),
}


@dataclass
class LayerCase:
    """One layer with the names of its inputs, in the order of its call."""

    make: Callable[..., keras.Layer]
    input_names: tuple[str, ...]
    call_arguments: dict[str, Any] = field(default_factory=dict)

    def make_arrays(self, batch=BATCH, length=LENGTH):
        rng = np.random.default_rng(batch)
        arrays = []
        for name in self.input_names:
            shape, dtype, (low, high) = INPUTS[name]
            shape = [length if size is None else size for size in shape]
            draw = rng.integers if dtype == "int32" else rng.uniform
            arrays.append(draw(low, high, (batch, *shape)).astype(dtype))
        return arrays

    def make_inputs(self):
        return [
            keras.Input(INPUTS[name][0], dtype=INPUTS[name][1], name=name)
            for name in self.input_names
        ]

    def make_layer(self, **kwargs):
        """Builds the layer, with no weight left at a value that hides it."""
        layer = self.make(**kwargs)
        self.run(layer, *self.make_arrays())
        rng = np.random.default_rng(7)
        for variable in layer.trainable_variables:
            noise = rng.normal(0, 0.3, variable.shape)
            variable.assign(variable.numpy() + noise)
        return layer

    def make_model(self, layer):
        inputs = self.make_inputs()
        return keras.Model(inputs, self.run(layer, *inputs))

    def run(self, layer, *inputs):
        return layer(*inputs, **self.call_arguments)


def make_head(**kwargs):
    embedding = keras.layers.ReversibleEmbedding(VOCABULARY, 4, name="tied")
    return layers.MaskedTokenHead(embedding, **kwargs)


def make_masking(**kwargs):
    return layers.TokenMasking(
        4,
        [0, 2, 3],
        rate=0.4,
        vocabulary_size=VOCABULARY,
        mask_share=0.8,
        random_share=0.1,
        seed=1,
        **kwargs,
    )


def make_fusion(**kwargs):
    return layers.CrossAttentionFusion(
        num_layers=1, num_heads=2, intermediate_dim=16, dropout=0.1, **kwargs
    )


CASES = {
    "ApplicationPreprocessing": LayerCase(
        lambda **kwargs: layers.ApplicationPreprocessing(
            "InceptionV3", **kwargs
        ),
        ("pixels",),
    ),
    "ImageEmbeddingRepeat": LayerCase(
        layers.ImageEmbeddingRepeat, ("image", "states")
    ),
    "BimodalFusion": LayerCase(
        lambda **kwargs: layers.BimodalFusion(5, "tanh", **kwargs),
        ("states", "image"),
    ),
    "CrossAttentionBlock": LayerCase(
        lambda **kwargs: layers.CrossAttentionBlock(
            num_heads=2, intermediate_dim=16, dropout=0.1, **kwargs
        ),
        ("states", "cells", "padding_mask"),
    ),
    "CrossAttentionFusion": LayerCase(
        make_fusion, ("states", "image", "padding_mask")
    ),
    "ImageAttention": LayerCase(
        lambda **kwargs: layers.ImageAttention(2, 4, **kwargs),
        ("states", "cells"),
    ),
    "MaskedTokenHead": LayerCase(make_head, ("states", "positions")),
    "MaskedTokenLoss": LayerCase(
        lambda **kwargs: layers.MaskedTokenLoss(0.1, **kwargs),
        ("logits", "labels", "weight"),
    ),
    "RelativeSelfAttention": LayerCase(
        lambda **kwargs: layers.RelativeSelfAttention(
            num_heads=2, max_distance=2, **kwargs
        ),
        ("states", "padding_mask"),
    ),
    "ConceptHead": LayerCase(
        lambda **kwargs: layers.ConceptHead(
            vocabulary_size=9, hidden_dim=16, **kwargs
        ),
        ("image",),
    ),
    "LengthHead": LayerCase(
        lambda **kwargs: layers.LengthHead(
            max_caption_tokens=9, hidden_dim=16, dropout=0.1, **kwargs
        ),
        ("image",),
    ),
    "TokenMasking": LayerCase(
        make_masking, ("token_ids", "padding_mask"), {"training": False}
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    """Returns one layer of the table, with the global seed set."""
    keras.utils.set_random_seed(0)
    return request.param


@pytest.fixture
def cases():
    """Returns the whole table."""
    return CASES
