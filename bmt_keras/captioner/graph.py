"""From image bytes to captions in TensorFlow ops.

The captioner runs the graph and the export stores it: both write the same
captions because both are this code.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmt_keras.data.images import read_pixels_or_error
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding import (
    DecodingOptions,
    ExpectedTokens,
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
    """The steps between an image and its caption.

    All but the first two take `image_embedding`, float32, (images,
    *embedding_shape), which `embed_pixels` gives. Whole captions are
    `token_ids`, int32, (images, length), `[CLS]` … `[SEP]`, padded. The
    arguments are those of `Captioner`.

    Raises:
        ValueError: There is no image tower, or nothing that tells lengths.
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
        tower = model.image_tower or image_tower
        if tower is None:
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
        self.image_tower: keras.Model = tower
        # What embeds images; a tower that is trained along changes each step,
        # so only a frozen one can be folded.
        self.embedder: keras.Model = tower
        if model.image_tower is None:
            self.embedder = fold_batch_norm(tower)
        self.length_counts = length_counts

    @property
    def pixels_shape(self) -> tuple[int, int, int]:
        """Shape of an image's pixels: height, width and 3."""
        return self.settings.image.height, self.settings.image.width, 3

    @property
    def embedding_shape(self) -> tuple[int, ...]:
        """Shape of an image's embedding, without batch."""
        return self.model.image_embedding_shape

    @property
    def max_caption_tokens(self) -> int:
        """Most tokens of a caption, `[CLS]` and `[SEP]` left out."""
        return self.settings.text.max_caption_tokens

    def default_options(self) -> DecodingOptions:
        """The decoding that the settings ask for."""
        options = DecodingOptions(**vars(self.settings.decoding))
        # No more candidates than there are lengths.
        candidates = min(options.length_candidates, self.max_caption_tokens)
        return dataclasses.replace(options, length_candidates=candidates)

    # === Images ===

    def read_pixels(self, image_bytes: tf.Tensor) -> tuple[Any, Any]:
        """Decodes and resizes images, string, (images,), as training did.

        Returns:
            uint8 pixels, (images, height, width, 3), and errors, string,
            (images,), empty where the image is good.
        """
        height, width, _ = self.pixels_shape
        return read_pixels_or_error(image_bytes, height, width)

    def embed_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """Embeds uint8 pixels, (images, height, width, 3)."""
        embedding = self.embedder(tf.cast(pixels, tf.float32), training=False)
        return tf.cast(embedding, tf.float32)

    # === Captions ===

    def write_captions(
        self,
        image_embedding: tf.Tensor,
        *,
        options: DecodingOptions | None = None,
        length_bounds: tf.Tensor | None = None,
        keywords: tf.Tensor | None = None,
    ) -> dict[str, Any]:
        """Writes captions.

        Args:
            image_embedding: The images.
            options: None for `default_options`.
            length_bounds: int32, (2,) or (images, 2), fewest and most tokens.
            keywords: int32, (keywords, tokens), padded: they stand in every
                caption.

        Returns:
            The dictionary of `mask_predict` and `caption`, string, (images,
            num_captions).
        """
        if keywords is not None:
            images = tf.shape(image_embedding)[0]
            keywords = tf.tile(keywords[None], (images, 1, 1))
        return self._with_text(
            mask_predict(
                self._predictor(image_embedding),
                self._length_log_probs(image_embedding),
                options=options or self.default_options(),
                length_bounds=length_bounds,
                keywords=keywords,
            )
        )

    def draw_captions(
        self, image_embedding: tf.Tensor, *, options: DecodingOptions
    ) -> tf.Tensor:
        """Draws token ids, int32, (images, num_captions, width)."""
        return draw_captions(
            self._predictor(image_embedding),
            self._length_log_probs(image_embedding),
            options=options,
        )

    def fill_templates(
        self,
        image_embedding: tf.Tensor,
        templates: tf.Tensor,
        *,
        options: DecodingOptions,
    ) -> dict[str, Any]:
        """Writes what `templates`, int32, (images, tokens), leave open."""
        return self._with_text(
            fill_templates(
                self._predictor(image_embedding),
                self._length_log_probs(image_embedding),
                templates,
                options=options,
            )
        )

    # === Given tokens ===

    def fill_masks(
        self, image_embedding: tf.Tensor, token_ids: tf.Tensor
    ) -> tf.Tensor:
        """Writes the masks of captions: int32, (images, length)."""
        # The same as `fill_templates` without gaps, in a smaller graph.
        return fill_masks(
            self._predictor(image_embedding),
            token_ids,
            options=self.default_options(),
        )

    def score_captions(
        self, image_embedding: tf.Tensor, token_ids: tf.Tensor
    ) -> tf.Tensor:
        """Each token's log-probability given all others, in nats.

        Returns:
            float32, (images, length); 0 at `[CLS]`, `[SEP]` and padding.
        """
        return score_tokens(self._predictor(image_embedding), token_ids)

    def guess_tokens(
        self, image_embedding: tf.Tensor, token_ids: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The likeliest token at each position of captions with masks.

        Returns:
            Token ids, int32, and their log-probabilities, float32, both
            (images, length). Special tokens are never guessed.
        """
        return guess_tokens(self._predictor(image_embedding), token_ids)

    def mask_candidates(
        self, image_embedding: tf.Tensor, token_ids: tf.Tensor, *, count: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The `count` likeliest tokens at each mask, all others still masked.

        Returns:
            Token ids, int32, and their probabilities, float32, both (images,
            max_caption_tokens, count), the first mask and the likeliest token
            first. Behind the last mask all are padding, of probability 0.
        """
        return mask_candidates(
            self._predictor(image_embedding),
            token_ids,
            count=count,
            max_caption_tokens=self.max_caption_tokens,
        )

    def _with_text(self, written: dict[str, Any]) -> dict[str, Any]:
        shape = tf.shape(written["score"])  # (images, num_captions)
        caption = self.tokenizer.decode_tensor(_to_rows(written["token_ids"]))
        return {"caption": tf.reshape(caption, shape), **written}

    def _predictor(self, image_embedding: tf.Tensor) -> TokenPredictor:
        """The model on any number of candidates of each image."""
        # What all passes and candidates share is computed once per image.
        projected = self.model.project_image(image_embedding)
        tokenizer, head = self.tokenizer, self.model.concept_head
        expected = None
        if head is not None:
            found = projected.token_probabilities
            expected = ExpectedTokens(found, head.rarity())

        def predict_logits(
            token_ids: Any, padding_mask: Any, *, mask_positions: Any
        ) -> tf.Tensor:
            # To the model an image's candidates are neighbouring rows.
            logits = self.model.token_logits(
                _to_rows(token_ids),
                _to_rows(padding_mask),
                projected_image=projected,
                mask_positions=_to_rows(mask_positions),
                skip_padding=True,
            )
            shape = (*tf.unstack(tf.shape(mask_positions)), logits.shape[-1])
            return tf.reshape(logits, shape)

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
            expected=expected,
        )

    def _length_log_probs(self, image_embedding: tf.Tensor) -> tf.Tensor:
        # (images, max_caption_tokens + 1)
        if self.model.length_head is not None:
            logits = self.model.length_head(image_embedding, training=False)
            return tf.nn.log_softmax(tf.cast(logits, tf.float32))
        # A length that no training caption has is unlikely, not impossible.
        counts = np.asarray(self.length_counts, np.float32) + 1e-3
        log_probs = tf.constant(np.log(counts / counts.sum()))[None]
        return tf.tile(log_probs, (tf.shape(image_embedding)[0], 1))


def _to_rows(values: tf.Tensor) -> tf.Tensor:
    """(images, candidates, size) to (images * candidates, size)."""
    return tf.reshape(values, (-1, tf.shape(values)[-1]))


class TracedGraph:
    """Runs steps of a caption graph on arrays.

    A step is traced once for each set of options that shape it.
    """

    def __init__(self, graph: CaptionGraph) -> None:
        self._graph = graph
        self.functions: dict[Any, Any] = {}

    def run(
        self,
        step: Callable[..., Any],
        images: np.ndarray,
        *,
        options: DecodingOptions | None = None,
        **arrays: np.ndarray,
    ) -> Any:
        """Runs a method of the graph that takes `image_embedding` first.

        `images` are uint8 pixels, (images, height, width, 3), or float32 image
        embeddings. Tables among `arrays`, its other arguments, may have any
        size from call to call. What it returns comes as arrays.
        """
        static, numbers = _split_options(options)
        key = (step.__name__, images.dtype, static, *arrays)
        if key not in self.functions:

            def call(images: Any, numbers: Any, arrays: Any) -> Any:
                if images.dtype == tf.uint8:
                    images = self._graph.embed_pixels(images)
                if static is None:
                    return step(images, **arrays)
                asked = dataclasses.replace(static, **numbers)
                return step(images, options=asked, **arrays)

            # Without a signature each number of images would be a trace.
            self.functions[key] = tf.function(
                call,
                input_signature=(
                    tf.TensorSpec((None, *images.shape[1:]), images.dtype),
                    tf.nest.map_structure(_spec, numbers),
                    tf.nest.map_structure(_spec, arrays),
                ),
            )
        result = self.functions[key](images, numbers, arrays)
        return tf.nest.map_structure(lambda each: each.numpy(), result)


def _split_options(
    options: DecodingOptions | None,
) -> tuple[DecodingOptions | None, dict[str, np.ndarray]]:
    """Options that shape a graph, and those that it takes as numbers."""
    if options is None:
        return None, {}
    numbers = {"passes": np.array(options.passes, np.int32)}
    fixed: dict[str, Any] = {"passes": 1, "top_p": 1.0, "seed": 0}
    if options.is_sampling:
        numbers |= {
            "temperature": np.array(options.temperature, np.float32),
            "top_p": np.array(options.top_p, np.float32),
            "seed": np.broadcast_to(np.array(options.seed, np.int32), (2,)),
        }
        fixed["temperature"] = 1.0
    return dataclasses.replace(options, **fixed), numbers


def _spec(array: np.ndarray) -> tf.TensorSpec:
    shape = (None, None) if array.ndim == 2 else array.shape
    return tf.TensorSpec(shape, array.dtype)
