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
    data: Any, masking: TokenMasking, *, training: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Masks a batch, unless it was masked and encoded before.

    Args:
        data: As `BimodalMaskedLM.train_step` takes it.
        masking: Draws the masks.
        training: Whether it draws anew.

    Returns:
        The model's inputs; and of the masked tokens alone `labels`, int32,
        (tokens,), and `sample_weight`, float32, (tokens,), with
        `caption_weight`, float32, (batch,), or None; and `token_ids`, int32,
        (batch, length), without masks, or None if they were masked before.
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
    else:
        inputs, labels, captions = _draw_masks(
            inputs, masking, training=training, **place
        )
    weight = ops.ones_like(labels, "float32")
    if caption_weight is not None:
        weight = tf.gather(caption_weight, captions)
    return inputs, {
        "labels": labels,
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
    places = tf.cast(tf.where(is_word), "int32")  # (words, 2)
    words = tf.stack([places[:, 0], tf.boolean_mask(token_ids, is_word)], -1)
    held = tf.scatter_nd(
        words, tf.ones_like(words[:, 0]), (tf.shape(token_ids)[0], size)
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
        length_logits: float, (photos, max_caption_length + 1).
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


def _draw_masks(
    batch: dict[str, Any], masking: TokenMasking, **options: Any
) -> tuple[dict[str, Any], Any, Any]:
    """Masked inputs, and labels and captions of the masked tokens."""
    masked = masking(
        batch["token_ids"], padding_mask=batch["padding_mask"], **options
    )
    # (masked tokens, 2): half of the slots are empty at random rates.
    used = tf.cast(tf.where(masked["sample_weight"] > 0), "int32")
    positions = tf.gather_nd(masked["mask_positions"], used)
    length = ops.shape(batch["token_ids"])[1]
    inputs = {
        **batch,
        "token_ids": masked["token_ids"],
        "mask_positions": used[:, 0] * length + positions,
    }
    return inputs, tf.gather_nd(masked["labels"], used), used[:, 0]
