"""The concat-and-project fusion, computed without copying the image."""

import math
from typing import Any

import keras
from keras import ops

from bmt_keras.layers.parts import ConfiguredLayer, Shape, check_positive


@keras.saving.register_keras_serializable(package="bmt_keras")
class BimodalFusion(ConfiguredLayer):
    """Projects every token state together with the image embedding.

    The output is that of

    ```python
    repeated = ImageEmbeddingRepeat()(image_embedding, token_states)
    both = keras.layers.Concatenate()([token_states, repeated])
    keras.layers.Dense(units, activation)(both)
    ```

    A product with a concatenation is the sum of two products, so each image is
    projected once and added to its tokens by broadcasting. The weights stay in
    one kernel, the first `hidden_dim` rows for the token states, the others
    for the flattened image embedding. One kernel also trains as the dense
    layer's does: Adam's `clipnorm` clips each variable's gradient by itself.

    Args:
        units: int. Size of the output.
        activation: Activation function or its name. Defaults to None, linear.
        kernel_initializer: Initializer of the kernel, (hidden_dim +
            image_dim, units). Defaults to `"glorot_uniform"`.
        bias_initializer: Initializer of the bias. Defaults to `"zeros"`.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        token_states: float, (batch, length, hidden_dim); its mask is passed on.
        image_embedding: float, (images, ...), flattened. `batch` is a multiple
            of `images`, and the captions of an image are neighbouring rows.
        padding_mask: Not read; other fusions take it.

    Returns:
        float, (batch, length, units).

    Attributes:
        is_projection: True: the output stands for that of the dense layer of a
            `MaskedTokenHead`, which then has none of its own.

    Raises:
        ValueError: If `units` is not positive, the token states have no three
            dimensions, or a size that the kernel needs is unknown.

    Example:
        ```python
        token_states, image = np.ones((2, 7, 16)), np.ones((2, 4, 4, 8))
        fusion = BimodalFusion(32)
        fusion(token_states, image)  # (2, 7, 32)
        # Many passes over one image: project it once.
        fusion.attend(token_states, fusion.project_image(image))
        ```
    """

    is_projection = True

    def __init__(
        self,
        units: int,
        activation: Any = None,
        *,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(units=units)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True

    def build(
        self, token_states_shape: Shape, image_embedding_shape: Shape
    ) -> None:
        """Creates the kernel and the bias."""
        sizes = (token_states_shape[-1], *image_embedding_shape[1:])
        known = [size for size in sizes if size is not None]
        if len(token_states_shape) != 3 or len(known) < len(sizes):
            raise ValueError(
                "`token_states` must have the shape (batch, length, "
                "hidden_dim), and `hidden_dim` and the dimensions of "
                "`image_embedding` must be known. Received: "
                f"token_states.shape={tuple(token_states_shape)}, "
                f"image_embedding.shape={tuple(image_embedding_shape)}."
            )
        self.hidden_dim, self.image_dim = known[0], math.prod(known[1:])
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.hidden_dim + self.image_dim, self.units),
            initializer=self.kernel_initializer,
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.units,), initializer=self.bias_initializer
        )

    def call(
        self, token_states: Any, image_embedding: Any, padding_mask: Any = None
    ) -> Any:
        """Adds the image's projection to the tokens'; see the class."""
        token_kernel, image_kernel = self._kernels()
        image_term = self._project(image_embedding, image_kernel)
        return self._add(token_states, token_kernel, image_term)

    def project_image(self, image_embedding: Any) -> Any:
        """Computes what depends on the image alone: float, (images, units).

        The layer must be built.
        """
        return self._project(image_embedding, self._kernels()[1])

    def attend(
        self, token_states: Any, projected_image: Any, padding_mask: Any = None
    ) -> Any:
        """Computes the output for an image of `project_image`."""
        return self._add(token_states, self._kernels()[0], projected_image)

    def compute_output_shape(
        self, token_states_shape: Shape, image_embedding_shape: Shape
    ) -> Shape:
        """Returns (batch, length, units)."""
        return (*token_states_shape[:-1], self.units)

    def _kernels(self) -> Any:
        # The layer's call does all these casts by itself; a direct one does
        # not. Two slices would each have a gradient of the whole kernel's size.
        kernel = ops.cast(self.kernel, self.compute_dtype)
        return ops.split(kernel, [self.hidden_dim], axis=0)

    def _project(self, image_embedding: Any, image_kernel: Any) -> Any:
        images = ops.shape(image_embedding)[0]
        image_embedding = ops.cast(image_embedding, self.compute_dtype)
        # (images, image_dim), whatever grid the cells had
        flat = ops.reshape(image_embedding, (images, self.image_dim))
        bias = ops.cast(self.bias, self.compute_dtype)
        return ops.matmul(flat, image_kernel) + bias

    def _add(
        self, token_states: Any, token_kernel: Any, image_term: Any
    ) -> Any:
        token_states = ops.cast(token_states, self.compute_dtype)
        token_term = ops.matmul(token_states, token_kernel)
        shape = ops.shape(token_term)
        # (images, captions * length, units) + (images, 1, units)
        token_term = ops.reshape(
            token_term, (ops.shape(image_term)[0], -1, self.units)
        )
        fused = self.activation(token_term + ops.expand_dims(image_term, 1))
        return ops.reshape(fused, shape)
