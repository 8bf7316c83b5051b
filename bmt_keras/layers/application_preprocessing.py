"""What an application of Keras expects in place of pixels."""

import difflib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from bmt_keras.layers.parts import ConfiguredLayer, Shape

PREPROCESSING: Mapping[str, Callable[..., Any]] = {
    name: sys.modules[application.__module__].preprocess_input
    for name, application in inspect.getmembers(
        keras.applications, inspect.isfunction
    )
}
"""The `preprocess_input` of each model of `keras.applications`, by name.

Not every model is found in the public module of its family, so the module
that defines it is asked.
"""


@keras.saving.register_keras_serializable(package="bmt_keras")
class ApplicationPreprocessing(ConfiguredLayer):
    """Applies the `preprocess_input` of a model of `keras.applications`.

    As a layer it is saved with the model behind it, so that a tower takes
    pixels whatever its family was trained on: pixels in [-1, 1]
    (InceptionV3, MobileNet), pixels in [0, 1] less ImageNet's mean and
    divided by its deviation (DenseNet), BGR less ImageNet's mean (VGG,
    ResNet50), or pixels as they are, where the model has a rescaling of its
    own (EfficientNet, MobileNetV3, ConvNeXt).

    Pixels are preprocessed in float32 at least and then cast to the compute
    dtype: half precision would round them beforehand.

    Args:
        application: str. Name of the model, as in `keras.applications`.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        images: int or float, (batch, height, width, 3): RGB pixels in
            [0, 255]. They are not written over.

    Returns:
        float, (batch, height, width, 3), in the compute dtype.

    Raises:
        ValueError: If `keras.applications` has no such model.

    Example:
        ```python
        images = np.full((1, 2, 2, 3), 255, "uint8")
        ApplicationPreprocessing("InceptionV3")(images)  # all ones
        ```
    """

    def __init__(self, application: str, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        if application not in PREPROCESSING:
            # Without a cutoff there are always some to name.
            near = difflib.get_close_matches(
                application, PREPROCESSING, cutoff=0.0
            )
            raise ValueError(
                "`application` must name a model of `keras.applications`, "
                f"such as {', '.join(near)}. Received: "
                f"application={application}."
            )
        self.application = application

    def call(self, images: Any) -> Any:
        """Preprocesses the pixels; see the class."""
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        # Some backends' tensors are written over by `preprocess_input`.
        pixels = ops.copy(ops.cast(images, dtype))
        preprocess = PREPROCESSING[self.application]
        return ops.cast(
            preprocess(pixels, data_format="channels_last"), self.compute_dtype
        )

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        """Returns the shape of the images."""
        return images_shape
