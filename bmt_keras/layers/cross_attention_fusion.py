"""Token states that read an image through gated cross-attention."""

import math
from typing import Any

import keras
from keras import ops

from bmt_keras.layers.cross_attention_block import CrossAttentionBlock
from bmt_keras.layers.parts import (
    ConfiguredLayer,
    Shape,
    check_positive,
    check_share,
    new_dense,
    new_norm,
)


@keras.saving.register_keras_serializable(package="bmt_keras")
class CrossAttentionFusion(ConfiguredLayer):
    """Lets token states attend to each other and to the cells of an image.

    The image embedding is normalised, projected to the width of the token
    states and marked with a learned embedding of each cell's position. Then
    come `num_layers` of `CrossAttentionBlock`. With gates that start at zero,
    the output equals the token states exactly at the start of training.

    Args:
        num_layers: int. Number of blocks.
        num_heads: int. Attention heads; divides `hidden_dim`.
        intermediate_dim: int. Width inside the feed-forward networks.
        dropout: float in [0, 1), of the blocks. Defaults to 0.0.
        layer_norm_epsilon: float. Defaults to 1e-5.
        gate_initializer: Of the blocks. Defaults to "zeros"; None for no gates.
        final_norm: bool. Normalise the states after the last block, as a stack
            of pre-norm blocks needs that no gate holds back. Defaults to False.
        image_dropout: float in [0, 1). Share of the image embedding's channels
            that training drops, each from all cells. Defaults to 0.0.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        token_states: float, (batch, length, hidden_dim); its mask is passed on.
        image_embedding: float, (images, height, width, channels), (images,
            cells, channels), or (images, channels) for an image of one cell.
            The number of cells must be known. `batch` is a multiple of
            `images`, and the captions of an image are neighbouring rows.
        padding_mask: int or bool, (batch, length), 1 at tokens, or None for
            the mask that `token_states` carries. The output at tokens depends
            neither on what stands at padding nor on how much of it there is.

    Returns:
        float, (batch, length, hidden_dim).

    Attributes:
        is_projection: False: the output is as wide as the token states.

    Raises:
        ValueError: If an argument is out of its range, `num_heads` does not
            divide `hidden_dim`, or the number of cells or channels is unknown.

    Example:
        ```python
        sizes = {"num_layers": 2, "num_heads": 4, "intermediate_dim": 64}
        fusion = CrossAttentionFusion(**sizes)
        token_states, image = np.ones((2, 7, 16)), np.ones((2, 4, 4, 8))
        fusion(token_states, image, np.ones((2, 7)))  # (2, 7, 16)
        # Many passes over one image: project it once.
        fusion.attend(token_states, fusion.project_image(image))
        ```
    """

    is_projection = False

    def __init__(
        self,
        *,
        num_layers: int,
        num_heads: int,
        intermediate_dim: int,
        dropout: float = 0.0,
        layer_norm_epsilon: float = 1e-5,
        gate_initializer: Any = "zeros",
        final_norm: bool = False,
        image_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(num_layers=num_layers)
        check_share(image_dropout=image_dropout)
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.intermediate_dim = intermediate_dim
        self.dropout = dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.gate_initializer = keras.initializers.get(gate_initializer)
        self.image_dropout = image_dropout
        self.final_norm = final_norm
        self.supports_masking = True
        self.blocks = [
            CrossAttentionBlock(
                num_heads=num_heads,
                intermediate_dim=intermediate_dim,
                dropout=dropout,
                layer_norm_epsilon=layer_norm_epsilon,
                gate_initializer=self.gate_initializer,
                name=f"block_{index}",
                dtype=self.dtype_policy,
            )
            for index in range(num_layers)
        ]

    def build(
        self, token_states_shape: Shape, image_embedding_shape: Shape
    ) -> None:
        """Creates the image's projection and builds the blocks."""
        batch, *grid, channels = image_embedding_shape
        sizes = [size for size in (*grid, channels) if size is not None]
        if len(sizes) < len(grid) + 1 or len(grid) > 2:
            raise ValueError(
                "`image_embedding` must have the shape (batch, height, width, "
                "channels), (batch, cells, channels) or (batch, channels), "
                "known but for the batch. Received: image_embedding.shape="
                f"{tuple(image_embedding_shape)}."
            )
        self.num_cells, self.channels = math.prod(sizes[:-1]), sizes[-1]
        hidden_dim = token_states_shape[-1]
        shape, epsilon = (batch, self.num_cells), self.layer_norm_epsilon
        self.image_norm = new_norm(
            self, "image_norm", (*shape, channels), epsilon
        )
        # Whole channels: neighbouring cells would tell what one cell lost.
        self.image_dropout_layer = keras.layers.SpatialDropout1D(
            self.image_dropout, name="image_dropout", dtype=self.dtype_policy
        )
        self.image_projection = new_dense(
            self, "image_projection", hidden_dim, (*shape, channels)
        )
        self.position_embedding = self.add_weight(
            name="position_embedding",
            shape=(self.num_cells, hidden_dim),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )
        for block in self.blocks:
            block.build(token_states_shape, (*shape, hidden_dim))
        self.states_norm = None
        if self.final_norm:
            self.states_norm = new_norm(
                self, "states_norm", token_states_shape, epsilon
            )

    def call(
        self, token_states: Any, image_embedding: Any, padding_mask: Any = None
    ) -> Any:
        """Projects the image, then runs the blocks; see the class."""
        projected = self.project_image(image_embedding)
        return self.attend(token_states, projected, padding_mask)

    def project_image(
        self, image_embedding: Any
    ) -> tuple[tuple[Any, Any], ...]:
        """Turns an image embedding into what the tokens attend to.

        It depends on no token. The layer must be built.

        Returns:
            For each block its keys and values of the image's cells, float, both
            (images, cells, num_heads, hidden_dim / num_heads).
        """
        # The layer's call does these casts by itself; a direct one does not.
        cells = ops.cast(image_embedding, self.compute_dtype)
        positions = ops.cast(self.position_embedding, self.compute_dtype)
        # A grid or one vector becomes a row of cells.
        cells = ops.reshape(
            cells, (ops.shape(cells)[0], self.num_cells, self.channels)
        )
        cells = self.image_dropout_layer(self.image_norm(cells))
        cells = self.image_projection(cells) + positions  # hidden_dim wide
        return tuple(
            block.cross_attention.project_image(cells) for block in self.blocks
        )

    def attend(
        self,
        token_states: Any,
        projected_image: tuple[tuple[Any, Any], ...],
        padding_mask: Any = None,
    ) -> Any:
        """Computes the output for an image of `project_image`."""
        for block, image in zip(self.blocks, projected_image, strict=True):
            token_states = block(token_states, image, padding_mask)
        if self.states_norm is not None:
            token_states = self.states_norm(token_states)
        return token_states

    def compute_output_shape(
        self, token_states_shape: Shape, image_embedding_shape: Shape
    ) -> Shape:
        """Returns (batch, length, hidden_dim)."""
        return tuple(token_states_shape)
