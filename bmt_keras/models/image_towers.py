"""Image towers: pixels to an image embedding, preprocessing included."""

import contextlib
import difflib
import hashlib
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import h5py
import keras

# Keras has no public name for the numbers in its layers' names.
from keras.src.backend.common import global_state

from bmt_keras.errors import InputError
from bmt_keras.layers.application_preprocessing import (
    PREPROCESSING,
    ApplicationPreprocessing,
)

SMALL_CNN = "SmallCNN"

# Where Keras keeps a model's weights: in a .keras file, and inside of a file
# of weights, where an optimizer's may follow.
_ARCHIVED_WEIGHTS = "model.weights.h5"
_LAYERS = ("layers/", "_layer_checkpoint_dependencies/", "model_weights/")


def small_cnn(height: int, width: int, *, channels: int = 128) -> keras.Model:
    """A small convolutional tower, trained along with the captioner.

    Returns:
        A model from pixels in [0, 255], (batch, height, width, 3), to cells,
        (batch, ceil(height / 16), ceil(width / 16), channels), both float.
    """
    images = keras.Input((height, width, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    for width_share, stride in ((4, 2), (2, 2), (1, 2), (1, 2)):
        filters = channels // width_share
        x = keras.layers.Conv2D(
            filters, 3, strides=stride, padding="same", use_bias=False
        )(x)
        # Keras' momentum of 0.99 is slow for runs of a few hundred steps.
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.Activation("relu")(x)
    return keras.Model(images, x, name="small_cnn")


def cut_application(
    name: str,
    layer: str,
    *,
    height: int,
    width: int,
    weights: str,
    pooling: int = 1,
) -> keras.Model:
    """A tower of `keras.applications`, cut at a layer.

    The classifier is left out, the model's own preprocessing put before it.

    Args:
        name: Name of the model, such as `InceptionV3`.
        layer: Name of the layer whose output is the embedding; empty for the
            last one before the classifier. Names that Keras numbers by itself
            (`conv2d_7`) count from the model's first such layer (`conv2d`).
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        weights: `"imagenet"` (downloaded by Keras), `"random"`, or a file:
            weights of this tower, of the cut model, of the model without
            its classifier or of the whole model, as Keras writes them now
            (`.weights.h5`, `.keras`) or wrote and publishes them (`.h5`).
        pooling: Side of the squares of neighbouring cells that are averaged.

    Returns:
        A frozen model from pixels in [0, 255], (batch, height, width, 3), to
        embeddings, (batch, rows, columns, channels) or (batch, features).

    Raises:
        InputError: There is no such model or layer, the images' size does not
            suit the model, the weights are missing or belong to another
            model, or the embedding is no grid as large as the pools.
    """
    if name not in PREPROCESSING:
        near = difflib.get_close_matches(name, PREPROCESSING, cutoff=0.0)
        raise InputError(
            f"`image_model` must be {SMALL_CNN} or a model of "
            f"`keras.applications`, such as {', '.join(near)}. Received: "
            f"image_model={name}."
        )
    path = None if weights in ("imagenet", "random") else Path(weights)
    if path is not None and not path.is_file():
        raise InputError(
            f"{path}: expected a file of image weights, found no such file."
        )
    trunk = _build_trunk(name, height, width, imagenet=weights == "imagenet")
    cut = trunk
    if layer:
        layers = {each.name: each for each in trunk.layers}
        if layer not in layers:
            near = difflib.get_close_matches(layer, layers, cutoff=0.0)
            raise InputError(
                f"`image_layer` must name a layer of {name}, such as "
                f"{', '.join(near)}. Received: image_layer={layer}."
            )
        cut = keras.Model(trunk.input, layers[layer].output)
    images = keras.Input((height, width, 3), name="images")
    preprocessing = ApplicationPreprocessing(name, name="preprocessing")
    embedding = cut(preprocessing(images))
    if pooling > 1:
        shape = tuple(embedding.shape[1:])
        if len(shape) != 3 or pooling > min(shape[:2]):
            raise InputError(
                "`image_pooling` must fit a grid of cells. Received: "
                f"{pooling} for an embedding of shape {shape}."
            )
        embedding = keras.layers.AveragePooling2D(
            pooling, padding="same", name="pooling"
        )(embedding)
    image_tower = keras.Model(images, embedding, name="image_tower")
    if path is not None:
        _load_weights(name, path, cut=(cut, image_tower), trunk=trunk)
    image_tower.trainable = False
    return image_tower


def fingerprint_weights(model: keras.Model) -> str:
    """A hash of all weights, which ties cached embeddings to them."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()[:16]


def _build_trunk(
    name: str, height: int, width: int, *, imagenet: bool
) -> keras.Model:
    try:
        with _first_names(), warnings.catch_warnings():
            # MobileNet was published at some sizes; any size will do here.
            warnings.filterwarnings("ignore", "`input_shape` is undefined")
            return getattr(keras.applications, name)(
                include_top=False,
                weights="imagenet" if imagenet else None,
                input_shape=(height, width, 3),
            )
    except ValueError as error:
        raise InputError(
            f"{name} cannot be built for images of {height}x{width}: {error}"
        ) from error
    except Exception as error:
        # A failed download is an exception of no particular class.
        if not imagenet:
            raise
        raise InputError(
            f"The ImageNet weights of {name} cannot be downloaded ({error}); "
            "give a local file by --image-weights."
        ) from error


@contextlib.contextmanager
def _first_names() -> Iterator[None]:
    """Has Keras name layers as if none had been built before."""
    before = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", None)
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", before)


def _load_weights(
    name: str, path: Path, *, cut: Iterable[keras.Model], trunk: keras.Model
) -> None:
    """Loads a file of the cut model, of the trunk, or of the whole model."""
    # Keras takes what a model needs from a file by position and leaves the
    # rest, so that a longer model's file would fill the wrong layers: only
    # models of exactly as many arrays as the file holds are tried. Its older
    # layout, which Keras reads as a whole, needs no such care.
    found, faults = _count_arrays(path), []
    is_new = path.name.endswith((".weights.h5", ".keras"))
    models, whole = [*cut, trunk], None
    if found > len(trunk.weights):
        whole = getattr(keras.applications, name)(weights=None)
        models.append(whole)
    for model in models:
        if is_new and len(model.weights) != found:
            continue
        try:
            with warnings.catch_warnings():
                # What Keras stores twice is missing in older files.
                warnings.filterwarnings("ignore", "Skipping nested container")
                model.load_weights(path)
            if model is whole:
                _copy_weights(whole, trunk)
            return
        except (ValueError, OSError, KeyError) as error:
            # The second paragraph, if there is one, says what is wrong.
            faults.append(str(error).split("\n\n")[:2][-1])
    counts = sorted({len(model.weights) for model in models})
    raise InputError(
        f"{path}: expected weights of {name}, "
        f"{' or '.join(map(str, counts))} arrays, found {found} "
        + (f"that do not fit: {faults[0]}" if faults else "arrays.")
    )


def _count_arrays(path: Path) -> int:
    """Counts the arrays of layers, without optimizer and random seeds."""
    names: list[str] = []

    def keep_array(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and "seed_generator" not in name:
            names.append(name)

    try:
        with contextlib.ExitStack() as stack:
            source: IO[bytes] = stack.enter_context(path.open("rb"))
            if path.suffix == ".keras":
                archive = stack.enter_context(zipfile.ZipFile(source))
                source = stack.enter_context(archive.open(_ARCHIVED_WEIGHTS))
            stack.enter_context(h5py.File(source)).visititems(keep_array)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: expected weights written by Keras (.weights.h5, .h5 or "
            f".keras), found something else: {error}"
        ) from error
    return len([n for n in names if n.startswith(_LAYERS)] or names)


def _copy_weights(whole: keras.Model, trunk: keras.Model) -> None:
    """Copies all weights but the classifier's, which come last."""
    loaded = (layer for layer in whole.layers if layer.weights)
    for layer in trunk.layers:
        if layer.weights:
            layer.set_weights(next(loaded).get_weights())
        if hasattr(layer, "finalize_state"):
            # Normalization computes with what it derived from its weights.
            layer.finalize_state()
