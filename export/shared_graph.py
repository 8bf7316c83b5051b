"""A caption graph whose large parts are stored once.

Signatures, and the loops within them, call the model and the vocabulary many
times. Each call would store all nodes again: the graph of a deep model would
be a tenth the size of its weights.
"""

import copy
from typing import Any, cast

import tensorflow as tf

from bmt_keras.captioner.graph import CaptionGraph
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.models import BimodalMaskedLM, fold_batch_norm


def share_parts(graph: CaptionGraph) -> CaptionGraph:
    """Makes functions of the parts of a graph that are called more than once.

    Args:
        graph: The captioner's graph, which stays as it is.

    Returns:
        A graph that gives the same.
    """
    shared = copy.copy(graph)
    shared.model = cast(BimodalMaskedLM, _SharedModel(graph.model))
    if graph.model.image_tower is not None:
        # Its training is over; a frozen one is folded already.
        shared.embedder = fold_batch_norm(graph.embedder)
    shared.tokenizer = cast(CaptionTokenizer, _SharedTokenizer(graph.tokenizer))
    return shared


class _SharedModel:
    """A model whose logits are one function for all calls of a kind."""

    def __init__(self, model: BimodalMaskedLM) -> None:
        self._model = model
        self._logits: dict[bool, Any] = {}  # by `skip_padding`

    def token_logits(
        self,
        token_ids: Any,
        padding_mask: Any,
        image_embedding: Any,
        *,
        mask_positions: Any | None = None,
        projected_image: Any | None = None,
        skip_padding: bool = False,
    ) -> Any:
        if mask_positions is None:
            positions = tf.range(tf.shape(token_ids)[1])[None]
            mask_positions = tf.tile(positions, (tf.shape(token_ids)[0], 1))
        if projected_image is None:
            projected_image = self._model.project_image(image_embedding)
        tensors = {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            "image_embedding": image_embedding,
            "mask_positions": mask_positions,
        }
        if projected_image is not None:
            tensors["projected_image"] = projected_image
        if skip_padding not in self._logits:

            def token_logits(tensors: dict[str, Any]) -> Any:
                return self._model.token_logits(
                    **tensors, skip_padding=skip_padding
                )

            self._logits[skip_padding] = tf.function(
                token_logits,
                input_signature=[tf.nest.map_structure(_spec, tensors)],
            )
        return self._logits[skip_padding](tensors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _SharedTokenizer:
    """A tokenizer that holds its vocabulary's texts in one function."""

    def __init__(self, tokenizer: CaptionTokenizer) -> None:
        self._tokenizer = tokenizer
        self.decode_tensor = tf.function(
            tokenizer.decode_tensor,
            input_signature=[tf.TensorSpec((None, None), tf.int32)],
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def _spec(tensor: Any) -> tf.TensorSpec:
    """Any batch size, and any length where the second axis is tokens."""
    sizes = [None] if tensor.shape.rank == 2 else tensor.shape[1:]
    return tf.TensorSpec([None, *sizes], tensor.dtype)
