"""From image bytes to what decoding asks for, in TensorFlow ops.

The captioner runs the graph and the export stores it: both write the same
captions because both are this code.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.data.images import PixelReader
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding import (
    DecodingOptions,
    ExpectedTokens,
    TokenPredictor,
)
from bmt_keras.models import BimodalMaskedLM, fold_batch_norm
from bmt_keras.settings import Settings


@dataclasses.dataclass(eq=False)
class CaptionGraph:
    """The steps between an image and what decoding asks for.

    The arguments are those of `Captioner`.

    Raises:
        ValueError: There is no image tower, or nothing that tells lengths.
    """

    model: BimodalMaskedLM
    tokenizer: CaptionTokenizer
    settings: Settings
    image_tower: Any  # a Keras model; None where `model` has one
    length_counts: Sequence[int] | None

    def __post_init__(self) -> None:
        """Checks that the parts suffice."""
        self.image_tower = self.model.image_tower or self.image_tower
        if self.image_tower is None:
            raise ValueError(
                "`image_tower` must be given for a model that takes image "
                "embeddings. Received: image_tower=None."
            )
        if self.model.length_head is None and self.length_counts is None:
            raise ValueError(
                "`length_counts` must be given for a model without a length "
                "head. Received: length_counts=None."
            )
        # What embeds images; a tower that is trained along changes each step,
        # so only a frozen one can be folded.
        self.embedder = self.image_tower
        if self.model.image_tower is None:
            self.embedder = fold_batch_norm(self.image_tower)

    @property
    def pixels_shape(self) -> tuple[int, int, int]:
        """Shape of an image's pixels: height, width and 3."""
        return self.settings.image.height, self.settings.image.width, 3

    @property
    def pixel_reader(self) -> PixelReader:
        """What reads images as training did."""
        image = self.settings.image
        return PixelReader(image.height, image.width, image.like_opencv)

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

    def embed_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """Embeds uint8 pixels, (images, height, width, 3)."""
        embedding = self.embedder(tf.cast(pixels, tf.float32), training=False)
        return tf.cast(embedding, tf.float32)

    def predictor(self, image_embedding: tf.Tensor) -> TokenPredictor:
        """The model as decoding sees it, with what it knows of the images.

        `image_embedding`, float32, (images, ...), is of `embed_pixels`.
        """
        # What all passes and candidates share is computed once per image.
        projected = self.model.project_image(image_embedding)
        head, expected = self.model.concept_head, None
        if head is not None:
            found = projected.token_probabilities
            expected = ExpectedTokens(found, head.rarity())

        def predict_logits(
            token_ids: Any, padding_mask: Any, *, mask_positions: Any
        ) -> tf.Tensor:
            # To the model an image's candidates are neighbouring rows.
            logits = self.token_logits(
                _to_rows(token_ids),
                _to_rows(padding_mask),
                _to_rows(mask_positions),
                projected,
            )
            shape = (*tf.unstack(tf.shape(mask_positions)), logits.shape[-1])
            return tf.reshape(logits, shape)

        return TokenPredictor(
            predict_logits,
            self.tokenizer,
            length_log_probs=self._length_log_probs(image_embedding),
            expected=expected,
        )

    def token_logits(
        self, token_ids: Any, padding_mask: Any, positions: Any, image: Any
    ) -> tf.Tensor:
        """The logits of `BimodalMaskedLM.token_logits`, as decoding asks."""
        return self.model.token_logits(
            token_ids,
            padding_mask,
            mask_positions=positions,
            projected_image=image,
            skip_padding=True,
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
    """Runs a caption graph, and decoding on it, on arrays.

    A step is traced once for each set of options that shape it.
    """

    def __init__(self, graph: CaptionGraph) -> None:
        self._graph = graph
        self.functions: dict[Any, Any] = {}
        pixels = tf.TensorSpec((None, *graph.pixels_shape), tf.uint8)
        # AutoGraph, which nothing here needs, is most of a trace's time.
        self.embed_pixels = tf.function(
            graph.embed_pixels, input_signature=[pixels], autograph=False
        )

    def run(
        self,
        step: Callable[..., Any],
        images: np.ndarray,
        *,
        options: DecodingOptions | None = None,
        **arrays: np.ndarray,
    ) -> Any:
        """Runs a function of decoding, which takes a `TokenPredictor` first.

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
                if static is not None:
                    asked = dataclasses.replace(static, **numbers)
                    arrays = {**arrays, "options": asked}
                return step(self._graph.predictor(images), **arrays)

            # Without a signature each number of images would be a trace.
            self.functions[key] = tf.function(
                call,
                input_signature=(
                    tf.TensorSpec((None, *images.shape[1:]), images.dtype),
                    tf.nest.map_structure(_spec, numbers),
                    tf.nest.map_structure(_spec, arrays),
                ),
                autograph=False,
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
    shape = (None,) * array.ndim if array.ndim > 1 else array.shape
    return tf.TensorSpec(shape, array.dtype)
