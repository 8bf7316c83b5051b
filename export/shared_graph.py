"""A caption graph whose large parts are stored once.

Signatures, and the loops within them, call the model and the vocabulary many
times. Each call would store all nodes again: the graph of a deep model would
be a tenth the size of its weights.
"""

import copy
from typing import Any

import tensorflow as tf

from bmt_keras.captioner.graph import CaptionGraph
from bmt_keras.models import fold_batch_norm

_TOKENS = tf.TensorSpec((None, None), tf.int32)


def share_parts(graph: CaptionGraph) -> CaptionGraph:
    """Gives the same graph, whose parts called more than once are functions."""
    shared: Any = copy.copy(graph)  # whose methods become functions
    embedding = tf.TensorSpec((None, *graph.model.image_embedding_shape))
    project = tf.function(graph.model.project_image)
    projected = project.get_concrete_function(embedding).structured_outputs
    image = tf.nest.map_structure(_spec, projected)
    shared.token_logits = tf.function(
        graph.token_logits, input_signature=[*[_TOKENS] * 3, image]
    )
    shared.tokenizer = copy.copy(graph.tokenizer)
    shared.tokenizer.decode_tensor = tf.function(
        graph.tokenizer.decode_tensor, input_signature=[_TOKENS]
    )
    if graph.model.image_tower is not None:
        # Its training is over; a frozen one is folded already.
        shared.embedder = fold_batch_norm(graph.embedder)
    return shared


def _spec(tensor: Any) -> tf.TensorSpec:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
