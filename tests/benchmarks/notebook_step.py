"""The training step of the 2020 notebook, on today's layers.

It computes what the notebook computed: ALBERT at every step, the image's
embedding copied to every token, and the vocabulary's logits at every token.
The loss is taken at the masked tokens alone, as transformers' classes did.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from bmt_keras.layers import (
    ImageEmbeddingRepeat,
    MaskedTokenHead,
    MaskedTokenLoss,
    TokenMasking,
)


class NotebookModel(keras.Model):
    """Fills masks as the notebook did; fitted on whole captions."""

    def __init__(
        self,
        text_tower: keras.Model,
        *,
        masking: TokenMasking,
        image_embedding_shape: tuple[int, ...],
    ) -> None:
        token_ids = keras.Input((None,), dtype="int32")
        padding_mask = keras.Input((None,), dtype="int32")
        image = keras.Input(image_embedding_shape)
        tokens = {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            "segment_ids": ops.zeros_like(token_ids),
        }
        states = text_tower(tokens)["sequence_output"]
        repeated = ImageEmbeddingRepeat()(image, states)
        states = keras.layers.Concatenate()([states, repeated])
        states = keras.layers.Dense(text_tower.embedding_dim)(states)
        head = MaskedTokenHead(text_tower.token_embedding, use_dense=False)
        # (batch, length, vocabulary_size)
        super().__init__([token_ids, padding_mask, image], head(states))
        self.masking = masking
        self.token_loss = MaskedTokenLoss()

    def train_step(self, data: Any) -> dict[str, Any]:
        """Masks a batch of token ids and image embeddings, and learns."""
        padding_mask, image = data["padding_mask"], data["image_embedding"]
        masked = self.masking(
            data["token_ids"], padding_mask=padding_mask, training=True
        )
        used = tf.where(masked["sample_weight"] > 0)
        positions = tf.gather_nd(masked["mask_positions"], used)
        indices = tf.stack([tf.cast(used[:, 0], tf.int32), positions], axis=1)
        labels = tf.gather_nd(masked["labels"], used)
        with tf.GradientTape() as tape:
            logits = self(
                [masked["token_ids"], padding_mask, image], training=True
            )
            masked_logits = tf.gather_nd(logits, indices)
            losses = self.token_loss.cross_entropy(masked_logits, labels)
            loss = ops.mean(losses)
        variables = self.trainable_weights
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss}
