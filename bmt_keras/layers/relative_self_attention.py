"""Self-attention that knows how far apart two tokens are."""

from typing import Any

import keras
import numpy as np
from keras import ops

from bmt_keras.layers.parts import (
    ConfiguredLayer,
    Shape,
    check_positive,
    new_dense,
)

_MASKED = -1e9
# What heads look at when training starts, in turn: the token before, the token
# behind, the one before that, and everything.
_FIRST_OFFSETS = (-1, 1, -2, None)
_FIRST_BIAS = 3.0


@keras.saving.register_keras_serializable(package="bmt_keras")
class RelativeSelfAttention(ConfiguredLayer):
    """Multi-head self-attention with a learned bias for each distance.

    The bias is added to the attention logits before the softmax, one number
    for each head and signed distance (Raffel et al.). It departs from T5 in two
    ways: short sequences need no buckets for long distances, and some heads
    start with a bias towards a neighbour. A masked language model from scratch
    learns nothing of a word's context until it has found the neighbours, which
    with absolute positions alone takes thousands of steps.

    Args:
        num_heads: int. Divides `hidden_dim`.
        max_distance: int. Tokens farther apart share its bias. Defaults to 16.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        token_states: float, (batch, length, hidden_dim).
        padding_mask: int or bool, (batch, length), 1 at tokens, or None. No
            token attends to padding.

    Returns:
        float, (batch, length, hidden_dim).

    Raises:
        ValueError: If an argument is not positive or `num_heads` does not
            divide `hidden_dim`.

    Reference:
        - [Raffel et al., 2019](https://arxiv.org/abs/1910.10683), section 2.1
        - [Shaw et al., 2018](https://arxiv.org/abs/1803.02155)
    """

    def __init__(
        self, *, num_heads: int, max_distance: int = 16, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_positive(num_heads=num_heads, max_distance=max_distance)
        self.num_heads = num_heads
        self.max_distance = max_distance
        self.supports_masking = True

    def build(self, token_states_shape: Shape) -> None:
        """Creates the projections and the table of biases."""
        hidden_dim = token_states_shape[-1]
        if hidden_dim is None or hidden_dim % self.num_heads:
            raise ValueError(
                "`num_heads` must divide `hidden_dim`. Received: num_heads="
                f"{self.num_heads}, hidden_dim={hidden_dim}."
            )
        self.hidden_dim = hidden_dim
        wide = keras.initializers.TruncatedNormal(stddev=hidden_dim**-0.5)
        # One product for queries, keys and values.
        options = {"shape": token_states_shape, "kernel_initializer": wide}
        self.projection = new_dense(
            self, "projection", 3 * hidden_dim, **options
        )
        self.output_dense = new_dense(
            self, "output_dense", hidden_dim, **options
        )
        self.distance_bias = self.add_weight(
            name="distance_bias",
            shape=(2 * self.max_distance + 1, self.num_heads),
            initializer=self._first_bias,
        )

    def call(self, token_states: Any, padding_mask: Any = None) -> Any:
        """Attends; see the class."""
        shape = ops.shape(token_states)
        width = self.hidden_dim // self.num_heads
        x = self.projection(token_states)
        x = ops.reshape(x, (shape[0], shape[1], 3 * self.num_heads, width))
        # (batch, heads, length, width) each
        x = ops.transpose(x, (0, 2, 1, 3))
        queries, keys, values = ops.split(x, 3, axis=1)
        logits = ops.matmul(queries * width**-0.5, ops.swapaxes(keys, -1, -2))
        # float16 holds no number as low as the mask's.
        logits = ops.cast(logits, "float32") + self._bias(shape[1])
        if padding_mask is not None:
            # (batch, 1, 1, length)
            hidden = 1 - ops.cast(padding_mask, "float32")
            logits = logits + _MASKED * hidden[:, None, None, :]
        # The softmax is summed up in float32 as well.
        weights = ops.cast(ops.softmax(logits), values.dtype)
        mixed = ops.matmul(weights, values)
        mixed = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), shape)
        return self.output_dense(mixed)

    def compute_output_shape(self, token_states_shape: Shape) -> Shape:
        """Returns (batch, length, hidden_dim)."""
        return tuple(token_states_shape)

    def _bias(self, length: Any) -> Any:
        """The bias of every pair: (heads, length, length)."""
        places = ops.arange(length, dtype="int32")
        distance = places[None, :] - places[:, None]
        limit = self.max_distance
        index = ops.clip(distance, -limit, limit) + limit
        # The table is turned, not the pairs: they are many more.
        table = ops.transpose(ops.cast(self.distance_bias, "float32"))
        return ops.take(table, index, axis=1)

    def _first_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        bias = np.zeros(shape)
        for head in range(self.num_heads):
            offset = _FIRST_OFFSETS[head % len(_FIRST_OFFSETS)]
            if offset is not None and abs(offset) <= self.max_distance:
                bias[offset + self.max_distance, head] = _FIRST_BIAS
        return ops.convert_to_tensor(bias, dtype)
