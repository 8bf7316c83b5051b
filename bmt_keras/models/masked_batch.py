"""What a training step learns from: masked captions and their lengths."""

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf
from keras import ops

from bmt_keras.layers import TokenMasking


class CaptionObjective(Protocol):
    """What else than captions by people a model may learn from."""

    def draw(self, batch: Any, step: Any) -> Any:
        """Gives a batch of other captions for the photos of a batch.

        Args:
            batch: As `BimodalMaskedLM.train_step` takes it.
            step: int, (), of the optimizer.

        Returns:
            A batch with a `caption_weight`, which may be negative.
        """


def mask_batch(
    data: Any,
    masking: TokenMasking,
    *,
    training: bool,
    keep_empty: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Masks a batch, unless it was masked and encoded before.

    Args:
        data: As `BimodalMaskedLM.train_step` takes it.
        masking: Draws the masks.
        training: Whether it draws anew.
        keep_empty: Keep the slots that hold no masked token, so that all shapes
            follow from those of the batch, as XLA needs it.

    Returns:
        The model's inputs; and of the masked tokens `labels`, int32,
        (tokens,), `is_masked`, float32, (tokens,), 0 in an empty slot, and
        `sample_weight`, float32, (tokens,), with `caption_weight`, float32,
        (batch,), or None; and `token_ids`, int32, (batch, length), without
        masks, or None if they were masked before.
    """
    batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    inputs = {k: ops.convert_to_tensor(v) for k, v in batch.items()}
    caption_weight = inputs.pop("caption_weight", None)
    inputs.pop("image_ids", None)
    token_ids = inputs.get("token_ids")
    place = {name: inputs.pop(name, None) for name in ("rows", "num_rows")}
    if "text_states" in inputs:
        labels = inputs.pop("labels")
        slots = ops.shape(inputs["text_states"])[1]
        captions = inputs["mask_positions"] // slots
        is_masked = ops.ones_like(labels, "float32")
    else:
        length = ops.shape(token_ids)[1]
        masked = masking(
            token_ids,
            padding_mask=inputs["padding_mask"],
            training=training,
            **place,
        )
        gather = _keep_all if keep_empty else _keep_masked
        captions, positions, labels, is_masked = gather(masked)
        inputs = {
            **inputs,
            "token_ids": masked["token_ids"],
            "mask_positions": captions * length + positions,
        }
    weight = is_masked
    if caption_weight is not None:
        weight = weight * tf.gather(caption_weight, captions)
    return inputs, {
        "labels": labels,
        "is_masked": is_masked,
        "sample_weight": weight,
        "caption_weight": caption_weight,
        "token_ids": token_ids,
    }


def sum_concept_losses(
    concept_logits: Any, token_ids: Any, special_token_ids: Sequence[int]
) -> tuple[Any, Any]:
    """How unlikely it is which tokens the captions hold, in all.

    Args:
        concept_logits: float, (photos, vocabulary_size).
        token_ids: int32, (batch, length), the captions of a photo in
            neighbouring rows; a row of padding alone is no caption.
        special_token_ids: These are no part of a caption.

    Returns:
        float32, (), nats, summed over captions and tokens; and float32, (),
        the number of captions.
    """
    photos, size = ops.shape(concept_logits)
    is_word = ~tf.reduce_any(
        token_ids[..., None] == tf.constant(list(special_token_ids)), axis=-1
    )
    rows, length = ops.shape(token_ids)
    captions = tf.broadcast_to(tf.range(rows)[:, None], (rows, length))
    held = tf.scatter_nd(
        tf.stack([captions, token_ids], axis=-1),  # (batch, length, 2)
        tf.cast(is_word, "int32"),
        (rows, size),
    )
    is_held = tf.cast(held > 0, "float32")
    counts = tf.cast(tf.reduce_any(is_word, axis=-1), "float32")
    # (photos, captions of a photo, vocabulary_size)
    is_held = tf.reshape(is_held, (photos, -1, size))
    losses = tf.nn.sigmoid_cross_entropy_with_logits(
        is_held, tf.broadcast_to(concept_logits[:, None], tf.shape(is_held))
    )
    losses = tf.reshape(tf.reduce_sum(losses, axis=-1), (-1,))
    return tf.reduce_sum(losses * counts), tf.reduce_sum(counts)


def sum_length_losses(
    length_logits: Any, padding_mask: Any, caption_weight: Any | None
) -> tuple[Any, Any]:
    """How unlikely the captions' lengths are, in all.

    Args:
        length_logits: float, (photos, max_caption_tokens + 1).
        padding_mask: int32, (batch, length), the captions of a photo in
            neighbouring rows; a row of padding alone is no caption.
        caption_weight: float32, (batch,), or None for 1.

    Returns:
        float32, (), nats; and float32, (), the number of captions.
    """
    num_tokens = ops.sum(padding_mask, axis=-1)
    weight = ops.cast(num_tokens > 0, "float32")
    count = ops.sum(weight)
    if caption_weight is not None:
        weight *= caption_weight
    # [CLS] and [SEP] are no part of a caption's length.
    lengths = ops.clip(num_tokens - 2, 0, length_logits.shape[-1] - 1)
    # (photos, captions of a photo)
    logits = ops.cast(length_logits, "float32")
    lengths = ops.reshape(lengths, (ops.shape(logits)[0], -1))
    log_probs = ops.take_along_axis(ops.log_softmax(logits), lengths, axis=-1)
    return -ops.sum(ops.reshape(log_probs, (-1,)) * weight), count


def _keep_masked(masked: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Caption, position, label and 1 of each masked token: (tokens,) each."""
    # (masked tokens, 2): half of the slots are empty at random rates.
    used = tf.cast(tf.where(masked["sample_weight"] > 0), "int32")
    names = "mask_positions", "labels", "sample_weight"
    return used[:, 0], *(tf.gather_nd(masked[name], used) for name in names)


def _keep_all(masked: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """As `_keep_masked`, of all slots, with 0 in the empty ones."""
    rows, slots = ops.shape(masked["labels"])
    captions = ops.repeat(ops.arange(rows, dtype="int32"), slots)
    names = "mask_positions", "labels", "sample_weight"
    return captions, *(ops.reshape(masked[name], (-1,)) for name in names)
