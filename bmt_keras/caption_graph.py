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
from bmt_keras.decoding import (
    DecodingOptions,
    FoundTokens,
    SpecialTokens,
    TokenPredictor,
    draw_captions,
    fill_masks,
    fill_templates,
    guess_tokens,
    mask_candidates,
    mask_predict,
    score_tokens,
)
from bmt_keras.models import BimodalMaskedLM, fold_batch_norm
from bmt_keras.settings import Settings


class CaptionGraph:
    """The steps between a photo and its caption.

    Args:
        model: The masked language model.
        tokenizer: Its tokenizer.
        settings: Its settings; image size and decoding are read.
        image_tower: The frozen model of the embeddings that `model` takes;
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
        image_tower: keras.Model | None = None,
        length_counts: Sequence[int] | None = None,
    ) -> None:
        encoder = model.image_tower or image_tower
        if encoder is None:
            raise ValueError(
                "`image_tower` must be given for a model that takes image "
                "embeddings. Received: image_tower=None."
            )
        if model.length_head is None and length_counts is None:
            raise ValueError(
                "`length_counts` must be given for a model without a length "
                "head. Received: length_counts=None."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.image_tower: keras.Model = encoder
        # What embeds photos; one that is trained along changes every step.
        self.embedder: keras.Model = encoder
        if model.image_tower is None:
            self.embedder = fold_batch_norm(encoder)
        self.length_counts = length_counts

    @property
    def pixels_shape(self) -> tuple[int, int, int]:
        """Shape of a photo's pixels: height, width and 3."""
        return self.settings.image.height, self.settings.image.width, 3

    @property
    def embedding_shape(self) -> tuple[int, ...]:
        """Shape of a photo's embedding, without batch."""
        return self.model.image_embedding_shape

    @property
    def max_caption_tokens(self) -> int:
        """Most tokens of a caption, `[CLS]` and `[SEP]` left out."""
        return self.settings.text.sequence_length - 2

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
        embedding = self.embedder(images, training=False)
        return tf.cast(embedding, tf.float32)

    def default_options(self) -> DecodingOptions:
        """The decoding that the settings ask for."""
        return DecodingOptions(
            passes=self.settings.decoding.passes,
            order=self.settings.decoding.order,
            overlap_weight=self.settings.decoding.overlap_weight,
            consensus_draws=self.settings.decoding.mbr_samples,
            finalists=self.settings.decoding.rerank_top,
            length_candidates=min(
                self.settings.decoding.length_candidates,
                self.max_caption_tokens,
            ),
        )

    def write_captions(
        self,
        image_embedding: tf.Tensor,
        *,
        options: DecodingOptions | None = None,
        length_bounds: tf.Tensor | None = None,
        keywords: tf.Tensor | None = None,
    ) -> dict[str, Any]:
        """Writes captions from image embeddings, in the graph.

        Args:
            image_embedding: float32, (batch, *embedding_shape).
            options: How to decode; None for `default_options`.
            length_bounds: int32, (2,) or (batch, 2), fewest and most tokens.
            keywords: int32, (keywords, tokens), padded: they stand in every
                caption.

        Returns:
            The dictionary of `mask_predict` and `caption`, string, (rows,).
        """
        options = options or self.default_options()
        if keywords is not None:
            batch = tf.shape(image_embedding)[0]
            keywords = tf.tile(keywords[None], (batch, 1, 1))
        written = mask_predict(
            self._predictor(image_embedding),
            self._length_log_probs(image_embedding),
            options=options,
            length_bounds=length_bounds,
            keywords=keywords,
        )
        return self._with_text(written)

    def draw_captions(
        self, image_embedding: tf.Tensor, *, options: DecodingOptions
    ) -> tf.Tensor:
        """Draws captions to learn from, in the graph.

        Args:
            image_embedding: float32, (batch, *embedding_shape).
            options: How to decode.

        Returns:
            int32, (batch * options.num_captions, width).
        """
        return draw_captions(
            self._predictor(image_embedding),
            self._length_log_probs(image_embedding),
            options=options,
        )

    def fill_masks(
        self, image_embedding: tf.Tensor, token_ids: tf.Tensor
    ) -> tf.Tensor:
        """Writes the masks of captions, in the graph.

        The same as `fill_templates` without gaps, in a smaller graph.

        Args:
            image_embedding: float32, (batch, *embedding_shape).
            token_ids: int32, (batch, length), `[CLS]` … `[SEP]`, padded.

        Returns:
            int32, (batch, length).
        """
        return fill_masks(
            self._predictor(image_embedding),
            token_ids,
            options=self.default_options(),
        )

    def fill_templates(
        self,
        image_embedding: tf.Tensor,
        templates: tf.Tensor,
        *,
        options: DecodingOptions | None = None,
    ) -> dict[str, Any]:
        """Writes what is missing in captions given in part, in the graph.

        Args:
            image_embedding: float32, (batch, *embedding_shape).
            templates: int32, (batch, tokens), as `decoding.fill_templates`
                takes them.
            options: How to decode; None for `default_options`.

        Returns:
            The dictionary of `mask_predict` and `caption`, string, (rows,).
        """
        options = options or self.default_options()
        written = fill_templates(
            self._predictor(image_embedding),
            self._length_log_probs(image_embedding),
            templates,
            options=options,
        )
        return self._with_text(written)

    def score_captions(
        self, image_embedding: tf.Tensor, token_ids: tf.Tensor
    ) -> tf.Tensor:
        """Pseudo-log-likelihoods of captions, in the graph.

        Args:
            image_embedding: float32, (batch, *embedding_shape).
            token_ids: int32, (batch, length), `[CLS]` … `[SEP]`, padded.

        Returns:
            float32, (batch, length): each word's log-probability given all
            others, 0 elsewhere.
        """
        return score_tokens(self._predictor(image_embedding), token_ids)

    def guess_tokens(
        self, image_embedding: tf.Tensor, token_ids: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The likeliest token at each place, in the graph.

        Args:
            image_embedding: float32, (batch, *embedding_shape).
            token_ids: int32, (batch, length), with masks.

        Returns:
            Token ids, int32, and their log-probabilities, float32, both
            (batch, length). Special tokens are never guessed.
        """
        return guess_tokens(self._predictor(image_embedding), token_ids)

    def mask_candidates(
        self, image_embedding: tf.Tensor, token_ids: tf.Tensor, *, count: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The likeliest tokens at each mask, in the graph.

        Each mask is judged with all others still masked.

        Args:
            image_embedding: float32, (batch, *embedding_shape).
            token_ids: int32, (batch, length), `[CLS]` … `[SEP]`, padded.
            count: How many tokens; fewer if the vocabulary has no more.

        Returns:
            Token ids, int32, and their probabilities, float32, both (batch,
            max_caption_tokens, count), the first mask and the likeliest token first.
            Behind the last mask all are padding, of probability 0.
        """
        return mask_candidates(
            self._predictor(image_embedding),
            token_ids,
            count=count,
            max_words=self.max_caption_tokens,
        )

    def _with_text(self, written: dict[str, Any]) -> dict[str, Any]:
        caption = self.tokenizer.decode_tensor(written["token_ids"])
        return {"caption": caption, **written}

    def _predictor(self, image_embedding: tf.Tensor) -> TokenPredictor:
        """The model on neighbouring rows of each photo, of any number."""
        # What all passes and rows share is computed once a photo.
        projected = self.model.project_image(image_embedding)
        tokenizer = self.tokenizer
        found, head = None, self.model.concept_head
        if head is not None:
            found = FoundTokens(projected.token_probabilities, head.rarity())

        def predict_logits(
            token_ids: tf.Tensor, padding_mask: tf.Tensor, **options: Any
        ) -> tf.Tensor:
            return self.model.token_logits(
                token_ids,
                padding_mask,
                projected_image=projected,
                skip_padding=True,
                **options,
            )

        return TokenPredictor(
            predict_logits,
            SpecialTokens(
                tokenizer.pad_token_id,
                tokenizer.cls_token_id,
                tokenizer.sep_token_id,
                tokenizer.mask_token_id,
                banned=tuple(tokenizer.special_token_ids),
                continuing=tuple(tokenizer.continuing_token_ids),
            ),
            vocabulary_size=tokenizer.vocabulary_size,
            at_positions=True,
            found=found,
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
