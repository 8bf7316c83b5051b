"""Self-attention that knows how far apart two tokens are."""

from typing import Any

import keras
from keras import ops

_MASKED = -1e9
# What heads look at when training starts, in turn: the token before, the token
# behind, the one before that, and everything.
_FIRST_OFFSETS = (-1, 1, -2, None)
_FIRST_BIAS = 3.0


@keras.saving.register_keras_serializable(package="bmt_keras")
class RelativeSelfAttention(keras.layers.Layer):
    """Multi-head self-attention with a learned bias for each distance.

    The bias is added to the attention logits before the softmax, one number
    for each head and signed distance (Raffel et al.). It departs from T5 in two
    ways: short sequences need no buckets for long distances, and some heads
    start with a bias towards a neighbour. A masked language model from scratch
    learns nothing of a word's context until it has found the neighbours, which
    with absolute positions alone takes thousands of steps.

    Args:
        num_heads: int. Divides `hidden_dim`.
        max_distance: int. Tokens farther apart share the bias of this
            distance. Defaults to 16.
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

    Example:
        ```python
        attention = RelativeSelfAttention(num_heads=4)
        attention(np.ones((2, 7, 16)), np.ones((2, 7))).shape  # (2, 7, 16)
        ```

    Reference:
        - [Raffel et al., 2019](https://arxiv.org/abs/1910.10683), section 2.1
        - [Shaw et al., 2018](https://arxiv.org/abs/1803.02155)
    """

    def __init__(
        self, *, num_heads: int, max_distance: int = 16, **kwargs: Any
    ) -> None:
        """Checks and keeps the arguments; see the class."""
        super().__init__(**kwargs)
        if num_heads < 1 or max_distance < 1:
            raise ValueError(
                "`num_heads` and `max_distance` must be positive. Received: "
                f"num_heads={num_heads}, max_distance={max_distance}."
            )
        self.num_heads = num_heads
        self.max_distance = max_distance
        self.supports_masking = True

    def build(self, token_states_shape: tuple[int | None, ...]) -> None:
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
        self.projection = keras.layers.Dense(
            3 * hidden_dim,
            kernel_initializer=wide,
            name="projection",
            dtype=self.dtype_policy,
        )
        self.projection.build(token_states_shape)
        self.output_dense = keras.layers.Dense(
            hidden_dim,
            kernel_initializer=wide,
            name="output_dense",
            dtype=self.dtype_policy,
        )
        self.output_dense.build(token_states_shape)
        self.distance_bias = self.add_weight(
            name="distance_bias",
            shape=(2 * self.max_distance + 1, self.num_heads),
            initializer=self._first_bias,
        )

    def call(
        self,
        token_states: keras.KerasTensor,
        padding_mask: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
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
        weights = ops.cast(ops.softmax(logits), values.dtype)
        mixed = ops.matmul(weights, values)
        mixed = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), shape)
        return self.output_dense(mixed)

    def compute_output_shape(
        self, token_states_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns (batch, length, hidden_dim)."""
        return tuple(token_states_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "max_distance": self.max_distance,
        }

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
        distances = ops.arange(shape[0]) - self.max_distance
        columns = []
        for head in range(shape[1]):
            offset = _FIRST_OFFSETS[head % len(_FIRST_OFFSETS)]
            column = ops.zeros(shape[:1], dtype)
            if offset is not None:
                near = ops.equal(distances, offset)
                column = _FIRST_BIAS * ops.cast(near, dtype)
            columns.append(column)
        return ops.stack(columns, axis=-1)
