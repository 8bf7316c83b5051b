import h5py
import keras
import numpy as np
import pytest

from bmt_keras.errors import InputError
from bmt_keras.layers.application_preprocessing import PREPROCESSING
from bmt_keras.models.image_towers import (
    cut_application,
    fingerprint_weights,
    small_cnn,
)

LAYER = "conv_pw_2_relu"
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))


def cut(
    name="MobileNet", layer=LAYER, *, size=(32, 32), weights="random", pooling=1
):
    return cut_application(
        name,
        layer,
        height=size[0],
        width=size[1],
        weights=str(weights),
        pooling=pooling,
    )


def embed_by_hand(name, tower):
    return tower.predict_on_batch(PREPROCESSING[name](IMAGES.astype("float32")))


def draw_weight(rng, shape):
    if len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape)


def write_old_layout(model, path):
    """Writes weights as Keras 2 did and as Keras' own are published."""
    model.save(path.with_suffix(".model.h5"))
    with (
        h5py.File(path.with_suffix(".model.h5")) as source,
        h5py.File(path, "w") as target,
    ):
        weights = source["model_weights"]
        target.attrs.update(weights.attrs)
        for name in weights:
            source.copy(weights[name], target)


@pytest.fixture(scope="module")
def whole():
    """A MobileNet in which no two weights are alike."""
    model = keras.applications.MobileNet(weights=None)
    rng = np.random.default_rng(1)
    model.set_weights([draw_weight(rng, x.shape) for x in model.weights])
    return model


@pytest.fixture(scope="module")
def trunk(whole):
    model = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())
    return model


@pytest.fixture(scope="module")
def tower(trunk):
    return keras.Model(trunk.input, trunk.get_layer(LAYER).output)


@pytest.fixture(scope="module")
def expected(tower):
    return embed_by_hand("MobileNet", tower)


@pytest.fixture(scope="module")
def files(whole, trunk, tower, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name, model in (("cut", tower), ("trunk", trunk), ("whole", whole)):
        model.save_weights(folder / f"{name}.weights.h5")
        write_old_layout(model, folder / f"{name}.h5")
    tower.save(folder / "cut.keras")
    image_tower = cut(weights=folder / "cut.weights.h5")
    image_tower.save(folder / "image_tower.keras")
    trained = keras.models.clone_model(trunk)
    trained.set_weights(trunk.get_weights())
    trained.compile("adam", "mse")
    trained.optimizer.build(trained.trainable_variables)
    trained.save_weights(folder / "trained.weights.h5")
    return folder


# === Weights ===


@pytest.mark.parametrize(
    "file",
    [
        *("cut.weights.h5", "cut.h5", "cut.keras", "image_tower.keras"),
        *("trunk.weights.h5", "trunk.h5", "trunk.model.h5"),
        *("trained.weights.h5", "whole.weights.h5", "whole.h5"),
    ],
)
def test_every_kind_of_file_gives_the_embedding_of_its_model(
    file, files, expected
):
    image_tower = cut(weights=files / file)
    np.testing.assert_allclose(
        image_tower.predict_on_batch(IMAGES), expected, rtol=1e-5, atol=1e-6
    )


def test_weights_fit_images_of_another_size(files, tower):
    image_tower = cut(size=(40, 49), weights=files / "trunk.h5")
    assert image_tower.output.shape == (None, 10, 12, 128)
    for loaded, own in zip(image_tower.weights, tower.weights, strict=True):
        np.testing.assert_array_equal(loaded, own)


def test_normalization_of_a_whole_model_is_carried_over(tmp_path):
    whole = keras.applications.EfficientNetB0(weights=None)
    (layer,) = (
        layer
        for layer in whole.layers
        if isinstance(layer, keras.layers.Normalization)
    )
    layer.set_weights([np.full(3, 0.5), np.full(3, 4.0), np.array(1)])
    whole.save_weights(tmp_path / "whole.weights.h5")
    image_tower = cut(
        "EfficientNetB0", "normalization", weights=tmp_path / "whole.weights.h5"
    )
    outputs = image_tower.predict_on_batch(IMAGES)
    np.testing.assert_allclose(outputs, (IMAGES / 255 - 0.5) / 2, atol=1e-5)


def test_imagenet_is_what_keras_downloads(files, expected, monkeypatch):
    monkeypatch.setattr(
        "keras.src.utils.file_utils.get_file",
        lambda *args, **kwargs: str(files / "trunk.h5"),
    )
    outputs = cut(weights="imagenet").predict_on_batch(IMAGES)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_failed_download_is_told_with_the_way_out(monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    with pytest.raises(InputError, match=r"fetch failure.*--image-weights"):
        cut(weights="imagenet")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.h5: .* found no such file"):
        cut(weights=tmp_path / "none.h5")


@pytest.mark.parametrize("name", ["text.weights.h5", "text.h5", "text.keras"])
def test_file_of_no_weights_is_told(name, tmp_path):
    path = tmp_path / name
    path.write_text("no weights")
    with pytest.raises(InputError, match=rf"{name}: expected weights written"):
        cut(weights=path)


@pytest.mark.parametrize("file", ["cut.weights.h5", "cut.keras"])
def test_longer_model_is_not_filled_in_part_nor_a_shorter_one(file, files):
    for layer, arrays in (("conv_pw_1_relu", 15), ("conv_pw_3_relu", 35)):
        with pytest.raises(
            InputError, match=rf"{file}: .* {arrays} or 135 .* found 25 arrays"
        ):
            cut(layer=layer, weights=files / file)


def test_old_file_of_another_cut_is_told(files):
    with pytest.raises(InputError, match=r"cut\.h5: .* Layer count mismatch"):
        cut(layer="conv_pw_3_relu", weights=files / "cut.h5")


@pytest.mark.parametrize("name", ["thin.weights.h5", "thin.h5"])
def test_file_of_other_shapes_is_told(name, tmp_path):
    thin = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    if name == "thin.h5":
        write_old_layout(thin, tmp_path / name)
    else:
        thin.save_weights(tmp_path / name)
    with pytest.raises(
        InputError, match=rf"{name}: .* that do not fit: .*hape"
    ):
        cut(layer="", weights=tmp_path / name)


# === Models and layers ===


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("MobileNet", LAYER),
        ("DenseNet121", "pool1"),
        ("VGG16", "block1_pool"),
        ("MobileNetV3Small", "activation_1"),
    ],
)
def test_saved_tower_keeps_preprocessing_and_weights(name, layer, tmp_path):
    keras.utils.set_random_seed(0)
    image_tower = cut(name, layer)
    image_tower.save(tmp_path / "image_tower.keras")
    loaded = keras.saving.load_model(tmp_path / "image_tower.keras")
    outputs = loaded.predict_on_batch(IMAGES)
    by_hand = embed_by_hand(name, image_tower.layers[-1])
    np.testing.assert_allclose(outputs, by_hand, rtol=1e-5, atol=1e-5)
    assert outputs.std() > 0


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("MobileNet", "", (None, 1, 1, 1024)),  # before the classifier
        ("EfficientNetB0", "block1a_se_squeeze", (None, 32)),  # pools
    ],
)
def test_tower_is_frozen_and_has_the_layers_shape(name, layer, shape):
    image_tower = cut(name, layer)
    assert image_tower.name == "image_tower"
    assert image_tower.trainable_variables == []
    assert image_tower.output.shape == shape


def test_numbers_of_layers_do_not_depend_on_earlier_models():
    for _ in range(2):
        image_tower = cut("MobileNetV3Small", "activation_3")
        assert image_tower.output.shape == (None, 2, 2, 240)
        assert len(image_tower.weights) == 73


@pytest.mark.parametrize(
    ("name", "layer", "match"),
    [
        ("MobilNet2", LAYER, r"MobileNetV2.*image_model=MobilNet2"),
        ("MobileNet", "conv_pw2_relu", r"conv_pw_2_relu.*=conv_pw2_relu"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(name, layer, match):
    with pytest.raises(InputError, match=match):
        cut(name, layer)


def test_too_small_images_are_told_in_keras_words():
    with pytest.raises(
        InputError, match=r"MobileNet .* 31x40: Input size must be at least 32"
    ):
        cut(size=(31, 40))


# === Others ===


def test_fingerprint_changes_with_the_weights_alone():
    image_tower = cut()
    fingerprint = fingerprint_weights(image_tower)
    assert fingerprint_weights(image_tower) == fingerprint
    weight = image_tower.weights[-1]
    weight.assign(weight + 1)
    assert fingerprint_weights(image_tower) != fingerprint


def test_small_cnn_has_a_cell_for_every_16_pixels():
    image_tower = small_cnn(33, 16, channels=8)
    assert image_tower.output.shape == (None, 3, 1, 8)


def test_pools_average_neighbouring_cells():
    image_tower = cut(size=(96, 96))
    pooled = cut(size=(96, 96), pooling=2)
    pooled.set_weights(image_tower.get_weights())
    images = np.random.default_rng(3).uniform(0, 255, (1, 96, 96, 3))
    grid = image_tower.predict_on_batch(images.astype("float32"))
    found = pooled.predict_on_batch(images.astype("float32"))
    rows, columns, channels = grid.shape[1:]
    assert found.shape == (1, -(-rows // 2), -(-columns // 2), channels)
    np.testing.assert_allclose(
        found[:, 0, 0], grid[:, :2, :2].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5
    )
    assert not pooled.trainable_weights


def test_pool_wider_than_the_grid_is_refused():
    with pytest.raises(InputError, match="`image_pooling` must fit"):
        cut(pooling=99)
