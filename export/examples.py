"""Example inputs of every signature: they warm a server up and check it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras import contract
from bmt_keras.captioner import Captioner

_MASK = b"[MASK]"


def example_inputs(
    captioner: Captioner, functions: Mapping[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """Makes inputs for signatures: first a good row, then others.

    Args:
        captioner: Tells the shapes.
        functions: The traced signatures by name.

    Returns:
        Arrays by input name, by signature name; (rows, ...) each. The first
        row of a signature is one that it answers without an error.
    """
    photo, noise = example_photo(captioner), example_photo(captioner, seed=0)
    length = captioner.settings.max_length
    embedding = np.random.default_rng(0).normal(
        size=(2, *captioner.graph.embedding_shape)
    )
    embedding = embedding.astype(np.float32)
    embedding[0] = 1.0  # a flat row is a short request
    written = functions[contract.SERVING_DEFAULT](tf.constant([noise]))
    caption = written[contract.CAPTION].numpy()[0]
    broken = b"no photo"
    photos = {contract.IMAGE_BYTES: _strings(photo, noise, broken)}
    inputs: dict[str, dict[str, np.ndarray]] = {
        contract.SERVING_DEFAULT: photos,
        contract.EMBED_IMAGE: photos,
        contract.CAPTION_WITH_LENGTH: {
            contract.IMAGE_BYTES: _strings(photo, noise, photo, broken),
            contract.LENGTH: np.array([0, 1, length, 1], np.int32),
        },
        contract.CAPTION_EMBEDDING: {contract.IMAGE_EMBEDDING: embedding},
        contract.MASKED_LM: {
            contract.TOKEN_IDS: np.full(
                (2, length), captioner.tokenizer.mask_id, np.int32
            ),
            contract.PADDING_MASK: np.ones((2, length), np.int32),
            contract.IMAGE_EMBEDDING: embedding,
        },
        contract.FILL_MASK: {
            contract.IMAGE_BYTES: _strings(photo, noise, photo, broken),
            contract.TEXT: _strings(
                *(_MASK, _MASK + b" " + caption, caption, _MASK)
            ),
        },
        contract.SCORE_CAPTION: {
            contract.IMAGE_BYTES: _strings(photo, noise, photo, broken),
            contract.TEXT: _strings(b"a", caption, b"", caption),
        },
    }
    return {name: inputs[name] for name in functions}


def example_photo(captioner: Captioner, *, seed: int | None = None) -> bytes:
    """A JPEG of the captioner's photo size, grey or of coloured squares."""
    settings = captioner.settings
    squares = np.full((4, 4, 3), 127, np.uint8)
    if seed is not None:
        rng = np.random.default_rng(seed)
        squares = rng.integers(0, 256, squares.shape, np.uint8)
    size = settings.image_height, settings.image_width
    pixels = tf.cast(tf.image.resize(squares, size, "nearest"), tf.uint8)
    jpeg: bytes = tf.io.encode_jpeg(pixels).numpy()
    return jpeg


def _strings(*values: bytes) -> np.ndarray:
    return np.array(values, object)
