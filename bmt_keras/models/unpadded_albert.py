"""ALBERT's states of a batch: nothing is computed for padding, or twice."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops


def encode_without_padding(
    text_tower: keras.Model, token_ids: Any, padding_mask: Any
) -> Any:
    """Gives the states that an ALBERT gives, without dropout, at the tokens.

    All tokens of a batch stand in one row, so that dense layers and
    normalisations do nothing for the padding; only attention takes the
    captions apart. Gradients are the same, too.

    Maps `token_ids` and `padding_mask`, int32, (batch, length), to float,
    (batch, length, hidden_dim), any numbers at padding.
    """
    shape = ops.shape(token_ids)
    is_token = padding_mask > 0
    # The first position counts as a token, as a batch may be all padding.
    taken = tf.concat([[True], tf.reshape(is_token, (-1,))[1:]], axis=0)
    positions = tf.where(taken)[:, 0]  # (tokens,)
    slots = tf.cumsum(tf.cast(taken, "int32")) - 1
    slots = tf.reshape(slots, shape)  # (batch, length)
    states = _embed(text_tower, token_ids)  # (batch, length, embedding_dim)
    states = tf.gather(tf.reshape(states, (-1, states.shape[-1])), positions)
    states = text_tower.embeddings_projection(states)  # (tokens, hidden_dim)
    repeats = text_tower.num_layers // text_tower.num_groups
    for group in text_tower.transformer_layers:
        blocks = [_Block(each, positions, slots, is_token) for each in group]
        for block in blocks * repeats:
            states = block.run(states)
    return tf.gather(states, slots)


def compute_blank_once(
    function: Callable[[Any, Any], Any],
    token_ids: Any,
    padding_mask: Any,
    *,
    special_token_ids: Sequence[int],
) -> Any:
    """Calls a function on captions, but once for equal ones without a token.

    Before a token is written, captions of one length are equal, whatever their
    images. Each row of what `function` gives, (batch, ...), depends on that row
    of `token_ids` and `padding_mask`, (batch, length), alone.
    """
    # Captions with tokens are all computed, so that the time does not depend
    # on which they are: a row of special tokens alone is blank.
    padding_mask = tf.cast(padding_mask, tf.int32)
    is_special = tf.equal(token_ids[..., None], list(special_token_ids))
    is_blank = tf.reduce_all(tf.reduce_any(is_special, -1), -1, keepdims=True)
    number = tf.range(tf.shape(token_ids)[0])[:, None]
    kind = tf.where(is_blank, -1, number)
    rows, index = tf.raw_ops.UniqueV2(
        x=tf.concat([kind, token_ids, padding_mask], axis=1), axis=[0]
    )
    token_ids, padding_mask = tf.split(rows[:, 1:], 2, axis=1)
    return tf.gather(function(token_ids, padding_mask), index)


class _Block:
    """One set of weights, without the padding that its own call computes."""

    def __init__(
        self, layer: Any, positions: Any, slots: Any, is_token: Any
    ) -> None:
        # KerasHub has no public names for the layers of its ALBERT's blocks.
        attention = layer._self_attention_layer
        self._layer, self._positions, self._slots = layer, positions, slots
        self._heads = attention.num_heads, attention.key_dim
        # One product of matrices takes less time than Keras' three einsums.
        inputs = "query_dense", "key_dense", "value_dense"
        matrices = [_to_matrix(getattr(attention, name)) for name in inputs]
        kernels, biases = zip(*matrices, strict=True)
        self._inputs = tf.concat(kernels, axis=1), tf.concat(biases, axis=0)
        self._outputs = _to_matrix(attention.output_dense)
        self._expand = _to_matrix(layer._feedforward_intermediate_dense)
        self._contract = _to_matrix(layer._feedforward_output_dense)
        # Half of the least number: scores are added to it.
        nothing = tf.zeros((), self._inputs[0].dtype)
        bias = tf.where(is_token, nothing, nothing.dtype.min / 2)
        self._bias = bias[:, None, None, :]

    def run(self, x: Any) -> Any:
        """From states to states, (tokens, hidden_dim)."""
        layer = self._layer
        x = layer._self_attention_layer_norm(x + self._attend(x))
        # Of matrices, product, bias and activation become one operation.
        y = _dense(x, self._expand)
        y = layer._feedforward_intermediate_dense.activation(y)
        y = _dense(y, self._contract)
        return layer._feedforward_layer_norm(x + y)

    def _attend(self, x: Any) -> Any:
        num_heads, head_dim = self._heads
        shape = tf.shape(self._slots)
        x = tf.gather(_dense(x, self._inputs), self._slots)
        x = tf.reshape(x, (shape[0], shape[1], 3 * num_heads, head_dim))
        # (batch, num_heads, length, head_dim) each
        query, key, value = tf.split(tf.transpose(x, (0, 2, 1, 3)), 3, axis=1)
        scores = tf.matmul(query * head_dim**-0.5, key, transpose_b=True)
        x = tf.matmul(tf.nn.softmax(scores + self._bias), value)
        x = tf.transpose(x, (0, 2, 1, 3))
        x = tf.reshape(x, (-1, num_heads * head_dim))
        return _dense(tf.gather(x, self._positions), self._outputs)


def _embed(text_tower: keras.Model, token_ids: Any) -> Any:
    tokens = text_tower.token_embedding(token_ids)
    positions = text_tower.position_embedding(tokens)
    segments = text_tower.segment_embedding(ops.zeros_like(token_ids))
    added = text_tower.embeddings_add((tokens, positions, segments))
    return text_tower.embeddings_layer_norm(added)


def _to_matrix(dense: Any) -> tuple[Any, Any]:
    """Kernel and bias of a dense layer to or from heads, without them."""
    # The width is at one end; the heads' dimensions are at the other.
    kernel = ops.cast(dense.kernel, dense.compute_dtype)
    bias = ops.cast(dense.bias, dense.compute_dtype)
    size = math.prod(bias.shape)
    return tf.reshape(kernel, (-1, size)), tf.reshape(bias, (size,))


def _dense(x: Any, weights: tuple[Any, Any]) -> Any:
    return tf.nn.bias_add(tf.matmul(x, weights[0]), weights[1])
