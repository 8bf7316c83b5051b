"""Embeddings in shards against those of the image tower itself."""

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.images import read_pixels
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower
from bmt_keras.settings import Settings
from bmt_keras.training.data import (
    feature_source,
    prepare_data,
)

SETTINGS = Settings().replace(
    image_model="VGG16",
    image_layer="block2_pool",
    image_trainable=False,
    image_height=32,
    image_width=40,
)


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


def test_prepared_embeddings_are_those_of_the_image_tower(images, tmp_path):
    data = prepare_data(
        SETTINGS,
        images[:8],
        images[8:],
        cache=tmp_path / "cache",
        shard_size=3,
    )
    # The same seed gives the same random tower.
    keras.utils.set_random_seed(0)
    tower = build_image_tower(SETTINGS)
    shards = (tmp_path / "cache" / "train").glob("*.rows")
    assert len(list(shards)) == 3
    for features, own in (
        (data.train_features, images[:8]),
        (data.val_features, images[8:]),
    ):
        pixels = [read_pixels(p.path.read_bytes(), 32, 40) for p in own]
        expected = tower.predict_on_batch(np.array(pixels, np.float32))
        assert expected.std() > 1
        rows = [features.rows[image.image_id] for image in own]
        found = features.array[rows]
        assert (found.dtype, found.shape) == (np.float16, expected.shape)
        np.testing.assert_allclose(
            found.astype(np.float32), expected, rtol=1e-3, atol=1e-3
        )


def test_images_are_embedded_in_the_asked_precision(images, tmp_path):
    keras.utils.set_random_seed(0)
    tower = build_image_tower(SETTINGS)
    plain = feature_source(SETTINGS, tower)
    settings = SETTINGS.replace(image_precision="bfloat16")
    source = feature_source(settings, tower)
    pixels = [read_pixels(p.path.read_bytes(), 32, 40) for p in images]
    expected = plain.encode(np.array(pixels))
    found = source.encode(np.array(pixels))
    # A processor without units for bfloat16 may compute as before.
    np.testing.assert_allclose(found, expected, atol=0.1 * expected.std())
    name = "auto_mixed_precision_onednn_bfloat16"
    assert not tf.config.optimizer.get_experimental_options().get(name)


def test_cache_of_another_precision_is_refused(images, tmp_path):
    keras.utils.set_random_seed(0)
    tower = build_image_tower(SETTINGS)
    sides = (images[:8], images[8:])
    cache = tmp_path / "cache"
    settings = SETTINGS.replace(image_precision="bfloat16")
    for _ in range(2):  # the second time it is opened
        prepare_data(settings, *sides, image_tower=tower, cache=cache)
    with pytest.raises(InputError, match="precision"):
        prepare_data(SETTINGS, *sides, image_tower=tower, cache=cache)
