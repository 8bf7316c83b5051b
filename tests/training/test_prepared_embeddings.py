"""Embeddings in shards against those of the image tower itself."""

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.images import PixelReader
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower
from bmt_keras.settings import Settings
from bmt_keras.training.data import feature_source, prepare_data

SETTINGS = Settings().replace(
    image_model="VGG16",
    image_layer="block2_pool",
    image_trainable=False,
    image_height=32,
    image_width=40,
)
READER = PixelReader(32, 40)


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    images = []
    for image_id in range(11):
        pixels = rng.integers(0, 256, (9, 8, 3), np.uint8)
        path = tmp_path / f"{image_id}.jpg"
        cv2.imwrite(str(path), cv2.resize(pixels, (60, 50)))
        images.append(CaptionedImage(image_id, path, ("a",)))
    return images


@pytest.fixture
def tower():
    """The same seed gives the same random tower."""
    keras.utils.set_random_seed(0)
    return build_image_tower(SETTINGS)


def test_prepared_embeddings_are_those_of_the_image_tower(
    images, tower, tmp_path
):
    cache = tmp_path / "cache"
    sides = images[:8], images[8:]
    data = prepare_data(SETTINGS, *sides, cache=cache, shard_size=3)
    assert len(list((cache / "train").glob("*.rows"))) == 3
    found = (data.train_features, data.val_features)
    for features, own in zip(found, sides, strict=True):
        pixels = [READER.read(p.path.read_bytes())[0] for p in own]
        expected = tower.predict_on_batch(np.array(pixels, np.float32))
        assert expected.std() > 1
        rows = features.array[[features.rows[x.image_id] for x in own]]
        assert (rows.dtype, rows.shape) == (np.float16, expected.shape)
        np.testing.assert_allclose(
            rows.astype(np.float32), expected, rtol=1e-3, atol=1e-3
        )


def test_images_are_embedded_in_the_asked_precision(images, tower, tmp_path):
    settings = SETTINGS.replace(image_precision="bfloat16")
    pixels = np.array([READER.read(p.path.read_bytes())[0] for p in images])
    expected, found = (
        feature_source(each, tower).encode(pixels)
        for each in (SETTINGS, settings)
    )
    # A processor without units for bfloat16 may compute as before.
    np.testing.assert_allclose(found, expected, atol=0.1 * expected.std())
    name = "auto_mixed_precision_onednn_bfloat16"
    assert not tf.config.optimizer.get_experimental_options().get(name)
    cache = {"image_tower": tower, "cache": tmp_path / "cache"}
    sides = images[:8], images[8:]
    for _ in range(2):  # the second time it is opened
        prepare_data(settings, *sides, **cache)
    with pytest.raises(InputError, match="precision"):
        prepare_data(SETTINGS, *sides, **cache)
