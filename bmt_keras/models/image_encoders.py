"""Image encoders: pixels to an image embedding, preprocessing included."""

import hashlib
import warnings
from pathlib import Path

import keras

from bmt_keras.errors import InputError

SMALL_CNN = "SmallCNN"


def small_cnn(height: int, width: int, *, channels: int = 128) -> keras.Model:
    """A small convolutional encoder, trained along with the captioner.

    Args:
        height: Height of the photos in pixels.
        width: Width of the photos in pixels.
        channels: Channels of the embedding.

    Returns:
        A model from pixels in [0, 255], float, (batch, height, width, 3), to
        embeddings, float, (batch, ceil(height / 16), ceil(width / 16),
        channels).
    """
    images = keras.Input((height, width, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    for width_share, stride in ((4, 2), (2, 2), (1, 2), (1, 2)):
        x = keras.layers.Conv2D(
            channels // width_share,
            3,
            strides=stride,
            padding="same",
            use_bias=False,
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.Activation("relu")(x)
    return keras.Model(images, x, name="small_cnn")


def cut_application(
    name: str, layer: str, *, height: int, width: int, weights: str
) -> keras.Model:
    """An encoder of `keras.applications`, cut at a layer.

    Args:
        name: Name of the model, such as `InceptionV3`.
        layer: Name of the layer whose output is the embedding; empty for the
            last one before the classifier.
        height: Height of the photos in pixels.
        width: Width of the photos in pixels.
        weights: A file of weights for the cut model or for the whole one,
            `"imagenet"` (downloaded by Keras), or `"random"`.

    Returns:
        A frozen model from pixels in [0, 255], float, (batch, height, width,
        3), to embeddings, float, (batch, rows, columns, channels).

    Raises:
        InputError: There is no such model or layer, or the weights are missing
            or belong to another model.
    """
    if name != "InceptionV3":
        raise InputError(
            "`image_model` must be SmallCNN or InceptionV3. Received: "
            f"image_model={name}."
        )
    path = None if weights in ("imagenet", "random") else Path(weights)
    if path is not None and not path.is_file():
        raise InputError(
            f"{path}: expected a file of image weights, found no such file."
        )
    whole = _build_application(name, height, width, weights)
    tower = whole
    if layer:
        names = [each.name for each in whole.layers]
        if layer not in names:
            raise InputError(
                f"`image_layer` must name a layer of {name}, such as "
                f"{', '.join(names[-3:])}. Received: image_layer={layer}."
            )
        tower = keras.Model(whole.input, whole.get_layer(layer).output)
    if path is not None:
        _load_weights(tower, whole, path)
    images = keras.Input((height, width, 3), name="images")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    encoder = keras.Model(images, tower(scaled), name="image_encoder")
    encoder.trainable = False
    return encoder


def fingerprint_weights(model: keras.Model) -> str:
    """A hash of all weights, which ties cached embeddings to them."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()[:16]


def _build_application(
    name: str, height: int, width: int, weights: str
) -> keras.Model:
    build = getattr(keras.applications, name)
    try:
        return build(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_shape=(height, width, 3),
        )
    except ValueError as err:
        raise InputError(
            f"{name} cannot be built for photos of {height}x{width}: {err}"
        ) from err
    except Exception as err:
        if weights != "imagenet":
            raise
        raise InputError(
            f"The ImageNet weights of {name} cannot be downloaded ({err}); "
            "give a local file by --image-weights."
        ) from err


def _load_weights(tower: keras.Model, whole: keras.Model, path: Path) -> None:
    """Loads a file made for the cut model, or else for the whole one."""
    faults = []
    for model in (tower, whole):
        try:
            with warnings.catch_warnings():
                # What Keras stores twice is missing in older files.
                warnings.filterwarnings("ignore", "Skipping nested container")
                model.load_weights(path)
            return
        except (ValueError, OSError, KeyError) as err:
            faults.append(str(err).splitlines()[0])
    raise InputError(
        f"{path}: expected weights of {whole.name} cut at "
        f"{tower.layers[-1].name} ({len(tower.weights)} arrays), found others: "
        f"{faults[0]}"
    )
