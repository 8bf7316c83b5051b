"""An image embedding repeated along the tokens of its caption."""

import math
from typing import Any

import keras
from keras import ops

# The mask of the second argument has no public road to the output.
from keras.src.backend import set_keras_mask

from bmt_keras.layers.parts import ConfiguredLayer, Shape, check_positive


@keras.saving.register_keras_serializable(package="bmt_keras")
class ImageEmbeddingRepeat(ConfiguredLayer):
    """Flattens an image embedding and repeats it along the tokens.

    It makes the image a neighbour of every token, ready to be concatenated with
    the token states. `BimodalFusion` adds a dense layer, without the copies.

    Args:
        length: int or None (default). Number of repeats without token states.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        image_embedding: float, (batch, ...).
        token_states: float, (batch, length, hidden_dim) or None. Only its
            length, which goes before the constructor's, and its mask are read.

    Returns:
        float, (batch, length, image_dim), where `image_dim` is the product of
        the image embedding's dimensions. Its mask is that of `token_states`.

    Raises:
        ValueError: If `length` is not positive, or no length is given at all.

    Example:
        ```python
        image, token_states = np.ones((2, 4, 4, 8)), np.ones((2, 7, 16))
        ImageEmbeddingRepeat()(image, token_states)  # (2, 7, 128)
        ImageEmbeddingRepeat(length=5)(image)  # (2, 5, 128)
        ```
    """

    def __init__(self, length: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if length is not None:
            check_positive(length=length)
        self.length = length

    def call(
        self,
        image_embedding: Any,
        token_states: Any = None,
        token_states_mask: Any = None,
    ) -> Any:
        """Repeats the flattened image embedding; see the class."""
        states_shape = None if token_states is None else ops.shape(token_states)
        shape = self.compute_output_shape(
            ops.shape(image_embedding), states_shape
        )
        image = ops.cast(image_embedding, self.compute_dtype)
        # (batch, 1, image_dim), then (batch, length, image_dim)
        flat = ops.reshape(image, (shape[0], 1, shape[2]))
        repeated = ops.broadcast_to(flat, shape)
        if token_states_mask is not None:
            set_keras_mask(repeated, token_states_mask)
        return repeated

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Returns None: `call` sets the mask, which is the token states'."""
        return None

    def compute_output_shape(
        self,
        image_embedding_shape: Shape,
        token_states_shape: Shape | None = None,
    ) -> Shape:
        """Returns (batch, length, image_dim)."""
        length = self.length
        if token_states_shape is not None:
            length = token_states_shape[1]
        elif length is None:
            raise ValueError(
                "`token_states` must be given in the call where the layer has "
                "no `length`. Received: token_states=None, length=None."
            )
        image: Any = image_embedding_shape[1:]
        image_dim = None if None in image else math.prod(image)
        return (image_embedding_shape[0], length, image_dim)

    def compute_output_spec(
        self,
        image_embedding: Any,
        token_states: Any = None,
        token_states_mask: Any = None,
    ) -> Any:
        """Returns the output's shape and dtype, with the token states' mask."""
        # Symbolic: `call` is not traced where the output shape is known.
        repeated = super().compute_output_spec(image_embedding, token_states)
        if token_states_mask is not None:
            set_keras_mask(repeated, token_states_mask)
        return repeated
