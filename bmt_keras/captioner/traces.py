"""The caption graph as traced functions on arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.caption_graph import CaptionGraph
from bmt_keras.decoding import DecodingOptions

_NUMBERS = (
    tf.TensorSpec((), tf.int32, name="passes"),
    tf.TensorSpec((), tf.float32, name="temperature"),
    tf.TensorSpec((), tf.float32, name="top_p"),
    tf.TensorSpec((2,), tf.int32, name="seed"),
)
_TABLE = tf.TensorSpec((None, None), tf.int32)


class CaptionTraces:
    """Runs a caption graph, traced once for each set of static options.

    Photos are either uint8 pixels, (batch, height, width, 3), or float32 image
    embeddings.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: CaptionGraph) -> None:
        self._graph = graph
        self._traced: dict[Any, Any] = {}

    def write(
        self,
        photos: np.ndarray,
        options: DecodingOptions,
        *,
        length_bounds: tuple[int, int],
        keywords: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs `CaptionGraph.write_captions`."""

        def call(
            embedding: Any, options: Any, bounds: Any, *keywords: Any
        ) -> Any:
            return self._graph.write_captions(
                embedding,
                options=options,
                length_bounds=bounds,
                keywords=keywords[0] if keywords else None,
            )

        arguments = [np.array(length_bounds, np.int32)]
        specs = [tf.TensorSpec((2,), tf.int32)]
        if keywords is not None:
            arguments.append(keywords)
            specs.append(_TABLE)
        return self._decode(call, photos, options, arguments, specs)

    def fill(
        self,
        photos: np.ndarray,
        options: DecodingOptions,
        templates: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Runs `CaptionGraph.fill_templates`."""

        def call(embedding: Any, options: Any, templates: Any) -> Any:
            return self._graph.fill_templates(
                embedding, templates, options=options
            )

        return self._decode(call, photos, options, [templates], [_TABLE])

    def score(self, photos: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
        """Runs `CaptionGraph.score_captions`."""
        traced = self._trace("score", self._graph.score_captions, photos)
        return np.asarray(traced(photos, token_ids))

    def guess(
        self, photos: np.ndarray, token_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Runs `CaptionGraph.guess_tokens`."""
        traced = self._trace("guess", self._graph.guess_tokens, photos)
        tokens, log_probs = traced(photos, token_ids)
        return tokens.numpy(), log_probs.numpy()

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Runs `CaptionGraph.embed_pixels`."""
        if "embed" not in self._traced:
            self._traced["embed"] = tf.function(
                self._graph.embed_pixels,
                input_signature=[self._photo_spec(pixels)],
            )
        return np.asarray(self._traced["embed"](pixels))

    def _trace(
        self, name: str, call: Callable[..., Any], photos: np.ndarray
    ) -> Any:
        """Traces a call on photos and a table of token ids once."""
        key = (name, photos.dtype)
        if key not in self._traced:
            self._traced[key] = tf.function(
                lambda photos, token_ids: call(self._embed(photos), token_ids),
                input_signature=[self._photo_spec(photos), _TABLE],
            )
        return self._traced[key]

    def _decode(
        self,
        call: Callable[..., Any],
        photos: np.ndarray,
        options: DecodingOptions,
        arguments: list[np.ndarray],
        specs: list[tf.TensorSpec],
    ) -> dict[str, np.ndarray]:
        # What is a tensor in the trace takes a fixed value in the key.
        static = dataclasses.replace(
            options,
            passes=1,
            temperature=1.0 if options.samples else 0.0,
            top_p=1.0,
            seed=0,
        )
        key = (call.__qualname__, photos.dtype, static, len(specs))
        if key not in self._traced:
            self._traced[key] = tf.function(
                self._on_photos(call, static),
                input_signature=[self._photo_spec(photos), *_NUMBERS, *specs],
            )
        numbers = (
            np.int32(options.passes),
            np.float32(options.temperature),
            np.float32(options.top_p),
            np.broadcast_to(np.array(options.seed, np.int32), (2,)),
        )
        written = self._traced[key](photos, *numbers, *arguments)
        return {name: value.numpy() for name, value in written.items()}

    def _on_photos(
        self, call: Callable[..., Any], static: DecodingOptions
    ) -> Callable[..., Any]:
        def run(
            photos: Any,
            passes: Any,
            temperature: Any,
            top_p: Any,
            seed: Any,
            *arguments: Any,
        ) -> Any:
            options = dataclasses.replace(static, passes=passes)
            if static.samples:
                options = dataclasses.replace(
                    options, temperature=temperature, top_p=top_p, seed=seed
                )
            return call(self._embed(photos), options, *arguments)

        return run

    def _photo_spec(self, photos: np.ndarray) -> tf.TensorSpec:
        return tf.TensorSpec((None, *photos.shape[1:]), photos.dtype)

    def _embed(self, photos: Any) -> Any:
        is_pixels = photos.dtype == tf.uint8
        return self._graph.embed_pixels(photos) if is_pixels else photos
