"""From photo bytes to captions in TensorFlow ops.

The captioner runs the graph and the export stores it: both write the same
captions because both are this code.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from bmt_keras.data.images import read_pixels_or_error
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding import SpecialTokens, mask_predict
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.settings import Settings


class CaptionGraph:
    """The steps between a photo and its caption.

    Args:
        model: The masked language model.
        tokenizer: Its tokenizer.
        settings: Its settings; image size and decoding are read.
        image_encoder: The frozen model of the embeddings that `model` takes;
            None if `model` encodes pixels by itself.
        length_counts: How many training captions had 0, 1, 2 … tokens; used
            where the model has no length head.

    Raises:
        ValueError: The image encoder or the lengths are nowhere to be had.
    """

    def __init__(
        self,
        model: BimodalMaskedLM,
        tokenizer: CaptionTokenizer,
        *,
        settings: Settings,
        image_encoder: keras.Model | None = None,
        length_counts: Sequence[int] | None = None,
    ) -> None:
        encoder = model.image_encoder or image_encoder
        if encoder is None:
            raise ValueError(
                "`image_encoder` must be given for a model that takes image "
                "embeddings. Received: image_encoder=None."
            )
        if model.length_head is None and length_counts is None:
            raise ValueError(
                "`length_counts` must be given for a model without a length "
                "head. Received: length_counts=None."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.image_encoder: keras.Model = encoder
        self.length_counts = length_counts

    @property
    def pixels_shape(self) -> tuple[int, int, int]:
        """Shape of a photo's pixels: height, width and 3."""
        return self.settings.image_height, self.settings.image_width, 3

    @property
    def embedding_shape(self) -> tuple[int, ...]:
        """Shape of a photo's embedding, without batch."""
        return self.model.image_embedding_shape

    def read_pixels(self, image_bytes: tf.Tensor) -> tuple[Any, Any]:
        """Decodes and resizes photos as training did.

        Args:
            image_bytes: string, (batch,).

        Returns:
            uint8 pixels, (batch, height, width, 3), and errors, string,
            (batch,), empty where the photo is good.
        """
        height, width, _ = self.pixels_shape
        return read_pixels_or_error(image_bytes, height, width)

    def embed_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """Encodes photos.

        Args:
            pixels: uint8, (batch, height, width, 3).

        Returns:
            float32, (batch, *embedding_shape).
        """
        images = tf.cast(pixels, tf.float32)
        embedding = self.image_encoder(images, training=False)
        return tf.cast(embedding, tf.float32)

    def write_captions(self, image_embedding: tf.Tensor) -> dict[str, Any]:
        """Writes captions from image embeddings, in the graph.

        Args:
            image_embedding: float32, (batch, *embedding_shape).

        Returns:
            The dictionary of `mask_predict` and `caption`, string, (batch,).
        """
        candidates = min(
            self.settings.length_candidates, self.settings.max_length - 2
        )
        repeated = tf.repeat(image_embedding, candidates, axis=0)
        written = mask_predict(
            lambda token_ids, padding_mask: self.model.token_logits(
                token_ids, padding_mask, repeated
            ),
            self._length_log_probs(image_embedding),
            special=self._special_tokens(),
            vocabulary_size=self.tokenizer.vocabulary_size,
            passes=self.settings.passes,
            length_candidates=candidates,
        )
        caption = self.tokenizer.decode_tensor(written["token_ids"])
        return {"caption": caption, **written}

    def _special_tokens(self) -> SpecialTokens:
        tokenizer = self.tokenizer
        return SpecialTokens(
            tokenizer.pad_id,
            tokenizer.cls_id,
            tokenizer.sep_id,
            tokenizer.mask_id,
            banned=tuple(tokenizer.special_token_ids),
        )

    def _length_log_probs(self, image_embedding: tf.Tensor) -> Any:
        if self.model.length_head is not None:
            logits = self.model.length_head(image_embedding, training=False)
            return ops.log_softmax(ops.cast(logits, "float32"))
        counts = np.asarray(self.length_counts, np.float32) + 1e-3
        prior = tf.constant(np.log(counts / counts.sum()))
        shape = (tf.shape(image_embedding)[0], prior.shape[0])
        return tf.ensure_shape(
            tf.broadcast_to(prior, shape), (None, prior.shape[0])
        )
