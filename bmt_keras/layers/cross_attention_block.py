"""One block in which tokens attend to each other and to the image."""

from typing import Any

import keras
from keras import ops

# The mask a tensor carries has no public setter.
from keras.src.backend import set_keras_mask

from bmt_keras.layers.parts import (
    ConfiguredLayer,
    Shape,
    check_positive,
    check_share,
    new_dense,
    new_norm,
    tanh_gelu,
)
from bmt_keras.layers.relative_self_attention import RelativeSelfAttention

# Adam moves any weight by about its rate a step: without a factor a lone gate
# would need hundreds of steps to open. A departure from Flamingo's gates.
_GATE_FACTOR = 8.0


@keras.saving.register_keras_serializable(package="bmt_keras")
class ImageAttention(keras.layers.MultiHeadAttention):
    """Multi-head attention whose keys and values can be kept.

    As a layer it is its parent. Apart from that, `project_image` gives the keys
    and values of an image, which depend on no token, and `attend` reads them:
    a decoder in many passes computes them once.

    Args:
        num_heads: int. Attention heads.
        key_dim: int. Width of each head.
        **kwargs: The arguments of its parent; `attend` has no dropout.

    Reference:
        [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
    """

    def project_image(self, image_cells: Any) -> tuple[Any, Any]:
        """Computes keys and values: (images, cells, num_heads, key_dim) each.

        The layer must be built. `image_cells`: (images, cells, channels).
        """
        return self._key_dense(image_cells), self._value_dense(image_cells)

    def attend(self, token_states: Any, keys: Any, values: Any) -> Any:
        """Attends to keys and values of `project_image`.

        Maps `token_states`, (images, tokens, hidden_dim), to the same shape.
        """
        # Private names: Keras has no public way to attend to keys that are
        # computed before. These are the parts of which its `call` consists, and
        # those that KerasHub's `CachedMultiHeadAttention` uses likewise.
        queries = self._query_dense(token_states)
        mixed, _ = self._compute_attention(queries, keys, values)
        return self._output_dense(mixed)


@keras.saving.register_keras_serializable(package="bmt_keras")
class CrossAttentionBlock(ConfiguredLayer):
    """Adds self-attention, attention to the image and a feed-forward network.

    Each of the three reads the layer-normalised states and is added to them
    through `tanh(8 * gate)`, a learned scalar that starts at zero: a fresh
    block returns its states unchanged, and a pretrained model keeps what it
    knows while the image finds its way in. Flamingo gates the cross-attention
    and the feed-forward network likewise; the self-attention is added here, as
    the states come from a finished text model, not from between its layers.

    Args:
        num_heads: int. Attention heads; divides `hidden_dim`.
        intermediate_dim: int. Width inside the feed-forward network.
        dropout: float in [0, 1), on each part's output. Defaults to 0.0.
        layer_norm_epsilon: float. Defaults to 1e-5.
        gate_initializer: Initializer of the gates. Defaults to "zeros". None
            for no gates: a text model from scratch has nothing to protect.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        token_states: float, (batch, length, hidden_dim).
        image_cells: float, (images, cells, hidden_dim). `batch` is a multiple
            of `images`, and the captions of an image are neighbouring rows: its
            keys and values are computed once for all of them. Or the pair of
            `cross_attention.project_image`, which many calls can share.
        padding_mask: int or bool, (batch, length), 1 at tokens, or None for
            the mask that `token_states` carries. No token attends to padding.

    Returns:
        float, (batch, length, hidden_dim).

    Raises:
        ValueError: If an argument is out of its range or `num_heads` does not
            divide `hidden_dim`.

    Reference:
        [Alayrac et al., 2022](https://arxiv.org/abs/2204.14198)
    """

    def __init__(
        self,
        *,
        num_heads: int,
        intermediate_dim: int,
        dropout: float = 0.0,
        layer_norm_epsilon: float = 1e-5,
        gate_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(num_heads=num_heads, intermediate_dim=intermediate_dim)
        check_share(dropout=dropout)
        self.num_heads = num_heads
        self.intermediate_dim = intermediate_dim
        self.dropout = dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.gate_initializer = keras.initializers.get(gate_initializer)
        self.supports_masking = True

    def build(
        self, token_states_shape: Shape, image_cells_shape: Shape
    ) -> None:
        """Creates the three parts, their gates and normalisations."""
        shape = tuple(token_states_shape)
        policy, width = self.dtype_policy, self.intermediate_dim
        # It checks that the heads divide the width.
        self.self_attention = RelativeSelfAttention(
            num_heads=self.num_heads, name="self_attention", dtype=policy
        )
        self.self_attention.build(shape)
        hidden_dim = self.self_attention.hidden_dim
        self.cross_attention = ImageAttention(
            self.num_heads,
            hidden_dim // self.num_heads,
            use_bias=False,
            # Keras' default takes the heads for a kernel's area and starts
            # queries and keys so small that attention hardly learns.
            kernel_initializer=keras.initializers.TruncatedNormal(
                stddev=hidden_dim**-0.5
            ),
            name="cross_attention",
            dtype=policy,
        )
        self.cross_attention.build(shape, tuple(image_cells_shape))
        self.expand = new_dense(
            self, "expand", width, shape, activation=tanh_gelu
        )
        self.contract = new_dense(
            self, "contract", hidden_dim, (*shape[:-1], width)
        )
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, name="dropout", dtype=policy
        )
        for part in ("self_attention", "cross_attention", "feed_forward"):
            name, gate = f"{part}_norm", None
            norm = new_norm(self, name, shape, self.layer_norm_epsilon)
            setattr(self, name, norm)
            if self.gate_initializer is not None:
                gate = self.add_weight(
                    name=f"{part}_gate",
                    shape=(),
                    initializer=self.gate_initializer,
                )
            setattr(self, f"{part}_gate", gate)

    def call(
        self,
        token_states: Any,
        image_cells: Any,
        padding_mask: Any = None,
        token_states_mask: Any = None,
    ) -> Any:
        """Applies the three parts in turn; see the class."""
        mask = token_states_mask if padding_mask is None else padding_mask
        states = token_states
        if not isinstance(image_cells, tuple):
            image_cells = self.cross_attention.project_image(image_cells)
        keys, values = image_cells

        x = self._normalise(self.self_attention_norm, states)
        x = self.self_attention(x, padding_mask=mask)
        states = states + self._gated(self.self_attention_gate, x)

        x = self._normalise(self.cross_attention_norm, states)
        shape = ops.shape(x)
        # All captions of an image are one sequence of queries:
        # (images, captions * length, hidden_dim).
        x = ops.reshape(x, (ops.shape(keys)[0], -1, shape[-1]))
        x = ops.reshape(self.cross_attention.attend(x, keys, values), shape)
        states = states + self._gated(self.cross_attention_gate, x)

        x = self._normalise(self.feed_forward_norm, states)
        x = self.contract(self.expand(x))
        return states + self._gated(self.feed_forward_gate, x)

    def compute_output_shape(
        self, token_states_shape: Shape, image_cells_shape: Shape
    ) -> Shape:
        """Returns (batch, length, hidden_dim)."""
        return tuple(token_states_shape)

    def _normalise(
        self, norm: keras.layers.LayerNormalization, states: Any
    ) -> Any:
        normalised = norm(states)
        # Attention would join this mask with `padding_mask`, which replaces it.
        set_keras_mask(normalised, None)
        return normalised

    def _gated(self, gate: keras.Variable | None, output: Any) -> Any:
        output = self.dropout_layer(output)
        return (
            output if gate is None else ops.tanh(_GATE_FACTOR * gate) * output
        )
