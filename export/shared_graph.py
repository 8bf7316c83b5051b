"""A caption graph whose large parts are stored once.

Signatures, and the loops within them, call the model and the vocabulary many
times. Each call would store all nodes again: the graph of a deep model would
be a tenth the size of its weights.
"""

import copy
from typing import Any, cast

import tensorflow as tf

from bmt_keras.captioner.graph import CaptionGraph
from bmt_keras.models import BimodalMaskedLM, fold_batch_norm

_TOKENS = tf.TensorSpec((None, None), tf.int32)


def share_parts(graph: CaptionGraph) -> CaptionGraph:
    """Gives the same graph, whose parts called more than once are functions."""
    shared = copy.copy(graph)
    shared.model = cast(BimodalMaskedLM, _SharedModel(graph.model))
    shared.tokenizer = copy.copy(graph.tokenizer)
    shared.tokenizer.decode_tensor = tf.function(  # type: ignore[method-assign]
        graph.tokenizer.decode_tensor, input_signature=[_TOKENS]
    )
    if graph.model.image_tower is not None:
        # Its training is over; a frozen one is folded already.
        shared.embedder = fold_batch_norm(graph.embedder)
    return shared


class _SharedModel:
    """A model whose logits are one function for all calls of a kind."""

    def __init__(self, model: BimodalMaskedLM) -> None:
        self._model = model
        self._functions: dict[bool, Any] = {}  # by `skip_padding`

    def token_logits(
        self,
        token_ids: Any,
        padding_mask: Any,
        image_embedding: Any | None = None,
        *,
        mask_positions: Any | None = None,
        projected_image: Any | None = None,
        skip_padding: bool = False,
    ) -> Any:
        # What a call leaves out is computed: one function then serves all.
        if mask_positions is None:
            positions = tf.range(tf.shape(token_ids)[1])[None]
            mask_positions = tf.tile(positions, (tf.shape(token_ids)[0], 1))
        if projected_image is None:
            projected_image = self._model.project_image(image_embedding)
        if skip_padding not in self._functions:

            def token_logits(
                tokens: Any, mask: Any, at: Any, image: Any
            ) -> Any:
                return self._model.token_logits(
                    tokens,
                    mask,
                    mask_positions=at,
                    projected_image=image,
                    skip_padding=skip_padding,
                )

            images = tf.nest.map_structure(_spec, projected_image)
            self._functions[skip_padding] = tf.function(
                token_logits, input_signature=[*[_TOKENS] * 3, images]
            )
        return self._functions[skip_padding](
            token_ids, padding_mask, mask_positions, projected_image
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _spec(tensor: Any) -> tf.TensorSpec:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
