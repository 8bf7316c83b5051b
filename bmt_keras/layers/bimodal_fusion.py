"""The concat-and-project fusion, computed without copying the image."""

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bmt_keras")
class BimodalFusion(keras.layers.Layer):
    """Projects every token state together with the image embedding.

    The output is that of

    ```python
    repeated = ImageEmbeddingRepeat()(image_embedding, token_states)
    both = keras.layers.Concatenate()([token_states, repeated])
    keras.layers.Dense(units, activation)(both)
    ```

    A product with a concatenation is the sum of two products, so each image is
    projected once and added to its tokens by broadcasting. The weights stay in
    one kernel: rows `[0:hidden_dim]` belong to the token states, the remaining
    `image_dim` rows to the flattened image embedding. One kernel also trains
    as the dense layer's does, which two would not: Adam's `clipnorm` clips the
    gradient of each variable by itself.

    Args:
        units: int. Size of the output.
        activation: Activation function or its name. Defaults to None, linear.
        kernel_initializer: Initializer of the kernel, (hidden_dim +
            image_dim, units). Defaults to `"glorot_uniform"`.
        bias_initializer: Initializer of the bias, (units,). Defaults to
            `"zeros"`.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        token_states: float, (batch, length, hidden_dim). Its mask is the
            output's.
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
        token_states = np.ones((2, 7, 16))
        image_embedding = np.ones((2, 4, 4, 8))
        fusion = BimodalFusion(32)
        fusion(token_states, image_embedding).shape  # (2, 7, 32)
        # Many passes over one image: project it once.
        projected = fusion.project_image(image_embedding)  # (2, 32)
        fusion.attend(token_states, projected)  # (2, 7, 32)
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
        """Checks and keeps the arguments; see the class."""
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(
                f"`units` must be positive. Received: units={units}."
            )
        self.units = units
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True

    def build(
        self,
        token_states_shape: tuple[int | None, ...],
        image_embedding_shape: tuple[int | None, ...],
    ) -> None:
        """Creates the kernel and the bias."""
        if len(token_states_shape) != 3:
            raise ValueError(
                "`token_states` must have the shape (batch, length, "
                "hidden_dim). Received: token_states.shape="
                f"{tuple(token_states_shape)}."
            )
        sizes = (token_states_shape[-1], *image_embedding_shape[1:])
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            raise ValueError(
                "`hidden_dim` and the dimensions of `image_embedding` must be "
                "known. Received: token_states.shape="
                f"{tuple(token_states_shape)}, image_embedding.shape="
                f"{tuple(image_embedding_shape)}."
            )
        self.hidden_dim, self.image_dim = known[0], math.prod(known[1:])
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.hidden_dim + self.image_dim, self.units),
            initializer=self.kernel_initializer,
        )
        self.bias = self.add_weight(
            name="bias",
            shape=(self.units,),
            initializer=self.bias_initializer,
        )

    def call(
        self,
        token_states: keras.KerasTensor,
        image_embedding: keras.KerasTensor,
        padding_mask: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Adds the image's projection to the tokens'; see the class."""
        # Two slices would each have a gradient of the whole kernel's size.
        token_kernel, image_kernel = ops.split(
            ops.convert_to_tensor(self.kernel), [self.hidden_dim], axis=0
        )
        image_term = self._project(image_embedding, image_kernel)
        return self._add(token_states, token_kernel, image_term)

    def project_image(
        self, image_embedding: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Computes the part of the output that depends on the image alone.

        The layer must be built.

        Args:
            image_embedding: float, (images, ...).

        Returns:
            float, (images, units).
        """
        kernel = ops.cast(self.kernel, self.compute_dtype)
        image_embedding = ops.cast(image_embedding, self.compute_dtype)
        return self._project(image_embedding, kernel[self.hidden_dim :])

    def attend(
        self,
        token_states: keras.KerasTensor,
        projected_image: keras.KerasTensor,
        padding_mask: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Computes the output of token states and an image projected before.

        Args:
            token_states: float, (batch, length, hidden_dim).
            projected_image: From `project_image`.
            padding_mask: Not read.

        Returns:
            float, (batch, length, units).
        """
        kernel = ops.cast(self.kernel, self.compute_dtype)
        token_states = ops.cast(token_states, self.compute_dtype)
        return self._add(
            token_states, kernel[: self.hidden_dim], projected_image
        )

    def compute_output_shape(
        self,
        token_states_shape: tuple[int | None, ...],
        image_embedding_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        """Returns (batch, length, units)."""
        return (*token_states_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "bias_initializer": keras.initializers.serialize(
                self.bias_initializer
            ),
        }

    def _project(self, image_embedding: Any, image_kernel: Any) -> Any:
        images = ops.shape(image_embedding)[0]
        flat = ops.reshape(image_embedding, (images, self.image_dim))
        bias = ops.cast(self.bias, self.compute_dtype)
        return ops.matmul(flat, image_kernel) + bias

    def _add(
        self, token_states: Any, token_kernel: Any, image_term: Any
    ) -> Any:
        token_term = ops.matmul(token_states, token_kernel)
        shape = ops.shape(token_term)
        # (images, captions * length, units) + (images, 1, units)
        token_term = ops.reshape(
            token_term, (ops.shape(image_term)[0], -1, self.units)
        )
        fused = self.activation(token_term + ops.expand_dims(image_term, 1))
        return ops.reshape(fused, shape)
