"""The head that turns states into logits over the vocabulary."""

from typing import Any

import keras
from keras import KerasTensor, ops

# The mask a tensor carries has no public setter.
from keras.src.backend import set_keras_mask

from bmt_keras.layers.parts import (
    ConfiguredLayer,
    Shape,
    new_dense,
    new_norm,
    tanh_gelu,
)


@keras.saving.register_keras_serializable(package="bmt_keras")
class MaskedTokenHead(ConfiguredLayer):
    """Predicts the token at each masked position.

    It is the head that ALBERT was pretrained with: a dense layer as wide as the
    token embedding, an activation, a layer normalisation, and the product with
    the transposed token embedding, plus a bias for each token. The embedding is
    shared with the layer that reads the tokens. The arguments are those of
    KerasHub's `MaskedLMHead`; the defaults are ALBERT's.

    Args:
        token_embedding: A `keras.layers.ReversibleEmbedding` (or KerasHub's).
        use_dense: bool. Whether the head has its dense layer; False for states
            that are already projected to the embedding's width, as by
            `BimodalFusion`. Defaults to True.
        intermediate_activation: Activation before the normalisation, or its
            name. Defaults to `tanh_gelu`.
        activation: Activation of the output, or its name. Defaults to None,
            which gives logits; `"softmax"` gives probabilities.
        layer_norm_epsilon: float. Defaults to 1e-12, that of ALBERT.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        states: float, (batch, length, hidden_dim).
        mask_positions: int, (batch, capacity), in [0, length), or None for all.
            Nothing is computed for the others.

    Returns:
        float32 whatever the dtype policy, (batch, capacity, vocabulary_size),
        or (batch, length, vocabulary_size) with the mask of `states`.

    Raises:
        TypeError: If `token_embedding` is no `ReversibleEmbedding`.
        ValueError: If the states have another width without a dense layer.

    Example:
        ```python
        embedding = keras.layers.ReversibleEmbedding(100, 8)
        head = MaskedTokenHead(embedding)
        states = np.ones((2, 7, 16))
        head(states, np.array([[1, 4], [2, 0]])).shape  # (2, 2, 100)
        ```

    Reference:
        - [Lan et al., 2020](https://arxiv.org/abs/1909.11942)
        - [Press and Wolf, 2016](https://arxiv.org/abs/1608.05859)
    """

    def __init__(
        self,
        token_embedding: keras.layers.ReversibleEmbedding,
        *,
        use_dense: bool = True,
        intermediate_activation: Any = tanh_gelu,
        activation: Any = None,
        layer_norm_epsilon: float = 1e-12,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(token_embedding, keras.layers.ReversibleEmbedding):
            raise TypeError(
                "`token_embedding` must be a `keras.layers."
                f"ReversibleEmbedding`. Received: {token_embedding!r}."
            )
        self.token_embedding = token_embedding
        self.use_dense = use_dense
        self.intermediate_activation = keras.activations.get(
            intermediate_activation
        )
        self.activation = keras.activations.get(activation)
        self.layer_norm_epsilon = layer_norm_epsilon
        self.vocabulary_size = token_embedding.input_dim

    def build(
        self, states_shape: Shape, mask_positions_shape: Shape | None = None
    ) -> None:
        """Creates the dense layer, the normalisation and the bias."""
        width = self.token_embedding.output_dim
        if not self.use_dense and states_shape[-1] != width:
            raise ValueError(
                "`states` must be as wide as `token_embedding` where "
                f"`use_dense` is False. Received: states.shape="
                f"{tuple(states_shape)}, output_dim={width}."
            )
        if self.use_dense:
            self.dense = new_dense(self, "dense", width, states_shape)
        shape, epsilon = (*states_shape[:-1], width), self.layer_norm_epsilon
        self.layer_norm = new_norm(self, "layer_norm", shape, epsilon)
        if not self.token_embedding.built:
            self.token_embedding.build()
        # Autocast would round the bias to the compute dtype.
        self.bias = self.add_weight(
            name="bias",
            shape=(self.vocabulary_size,),
            initializer="zeros",
            autocast=False,
        )

    def call(
        self, states: Any, mask_positions: Any = None, mask: Any = None
    ) -> Any:
        """Computes the logits or what `activation` makes of them."""
        x = states
        if mask_positions is not None:
            x = take_positions(x, mask_positions)
        if self.use_dense:
            x = self.dense(x)
        x = self.layer_norm(self.intermediate_activation(x))
        # The embedding supports no mask when called in reverse.
        set_keras_mask(x, None)
        logits = self.token_embedding(x, reverse=True)
        logits = ops.cast(logits, "float32") + ops.cast(self.bias, "float32")
        outputs = self.activation(logits)
        if mask_positions is None and mask is not None:
            set_keras_mask(outputs, mask)
        return outputs

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Returns None: `call` sets the mask where there are no positions."""
        return None

    def compute_output_shape(
        self, states_shape: Shape, mask_positions_shape: Shape | None = None
    ) -> Shape:
        """Returns (batch, capacity or length, vocabulary_size)."""
        shape = mask_positions_shape or states_shape[:-1]
        return (*shape, self.vocabulary_size)

    def compute_output_spec(
        self, states: Any, mask_positions: Any = None, mask: Any = None
    ) -> Any:
        """Returns the shape of the logits in float32."""
        # The compute dtype, Keras' guess, would be wrong: see `call`.
        positions_shape = getattr(mask_positions, "shape", None)
        shape = self.compute_output_shape(states.shape, positions_shape)
        outputs = KerasTensor(shape, "float32")
        if mask_positions is None and mask is not None:
            set_keras_mask(outputs, mask)
        return outputs

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MaskedTokenHead":
        """Creates the layer from what `get_config` returned."""
        # In a saved model Keras makes it the very layer that reads the tokens.
        embedding = keras.layers.deserialize(config["token_embedding"])
        return cls(**{**config, "token_embedding": embedding})


def take_positions(x: Any, positions: Any) -> Any:
    """Takes vectors of (batch, length, dim) at (batch, capacity) positions.

    A position outside of [0, length) fails where `ops.take` fails: on
    processors, not on accelerators.
    """
    # By rows of the whole batch: `ops.take_along_axis` gathers number by number
    # from a transposed copy, which takes up to twelve times as long.
    batch, length = ops.shape(x)[0], ops.shape(x)[1]
    positions = ops.cast(positions, "int32")
    starts = ops.expand_dims(ops.arange(batch, dtype="int32") * length, -1)
    # One outside of its row is to fail, not to be another row's.
    is_inside = ops.logical_and(positions >= 0, positions < length)
    index = ops.where(is_inside, starts + positions, batch * length)
    return ops.take(ops.reshape(x, (-1, x.shape[-1])), index, axis=0)
