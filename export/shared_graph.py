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
    """A model whose logits are one function, however often decoding asks."""

    def __init__(self, model: BimodalMaskedLM) -> None:
        self._model = model
        self._function: Any = None

    def token_logits(
        self,
        token_ids: Any,
        padding_mask: Any,
        *,
        mask_positions: Any,
        projected_image: Any,
        skip_padding: bool,
    ) -> Any:
        if self._function is None:
            images = tf.nest.map_structure(_spec, projected_image)
            self._function = tf.function(
                self._token_logits, input_signature=[*[_TOKENS] * 3, images]
            )
        return self._function(
            token_ids, padding_mask, mask_positions, projected_image
        )

    def _token_logits(self, tokens: Any, mask: Any, at: Any, image: Any) -> Any:
        return self._model.token_logits(
            tokens,
            mask,
            mask_positions=at,
            projected_image=image,
            skip_padding=True,  # as decoding always asks
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _spec(tensor: Any) -> tf.TensorSpec:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
