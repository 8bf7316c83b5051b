"""Logits of a language model joined with what was found in the photos."""

from typing import Any

from keras import ops


def add_evidence(
    logits: Any, evidence: Any, mask_positions: Any, token_shape: Any
) -> Any:
    """Adds each photo's evidence to the logits of its captions.

    Args:
        logits: float, (batch, positions, vocabulary_size), or (positions,
            vocabulary_size) where the positions are flat.
        evidence: float, (photos, vocabulary_size); the captions of a photo are
            neighbouring rows of the batch.
        mask_positions: int, (positions,) of the flattened batch * length; read
            where the positions are flat.
        token_shape: The batch and the length.

    Returns:
        As the logits.
    """
    photos = ops.shape(evidence)[0]
    if len(logits.shape) == 2:
        batch, length = token_shape
        captions_of_photo = batch // photos
        places = mask_positions // (length * captions_of_photo)
        return logits + ops.take(evidence, places, axis=0)
    shape = ops.shape(logits)
    logits = ops.reshape(logits, (photos, -1, shape[-1]))
    return ops.reshape(logits + evidence[:, None], shape)
