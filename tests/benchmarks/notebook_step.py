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
        super().__init__(name="notebook")
        self.text_tower = text_tower
        self.masking = masking
        self.repeat = ImageEmbeddingRepeat()
        self.concatenate = keras.layers.Concatenate()
        self.dense = keras.layers.Dense(text_tower.embedding_dim)
        self.head = MaskedTokenHead(text_tower.token_embedding, use_dense=False)
        self.token_loss = MaskedTokenLoss()
        self.loss_tracker = keras.metrics.Mean(name="loss")
        # Builds the layers.
        self._fuse(
            keras.Input((None, text_tower.hidden_dim)),
            keras.Input(image_embedding_shape),
        )

    def train_step(self, data: Any) -> dict[str, Any]:
        """Masks a batch of token ids and image embeddings, and learns."""
        masked = self.masking(
            data["token_ids"],
            padding_mask=data["padding_mask"],
            training=True,
        )
        used = tf.where(masked["sample_weight"] > 0)
        positions = tf.gather_nd(masked["mask_positions"], used)
        indices = tf.stack([tf.cast(used[:, 0], tf.int32), positions], axis=1)
        labels = tf.gather_nd(masked["labels"], used)
        with tf.GradientTape() as tape:
            states = self.text_tower(
                {
                    "token_ids": masked["token_ids"],
                    "padding_mask": data["padding_mask"],
                    "segment_ids": ops.zeros_like(data["token_ids"]),
                },
                training=True,
            )["sequence_output"]
            # (batch, length, vocabulary_size)
            logits = self._fuse(states, data["image_embedding"])
            masked_logits = tf.gather_nd(logits, indices)
            losses = self.token_loss.cross_entropy(masked_logits, labels)
            loss = ops.mean(losses)
        variables = self.trainable_weights
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def _fuse(self, states: Any, image_embedding: Any) -> Any:
        repeated = self.repeat(image_embedding, states)
        return self.head(self.dense(self.concatenate([states, repeated])))
