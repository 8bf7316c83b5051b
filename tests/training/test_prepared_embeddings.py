"""Embeddings in shards against those of the image model itself."""

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
from bmt_keras.training import feature_source, prepare_data

SETTINGS = Settings().replace(
    image_model="VGG16",
    image_layer="block2_pool",
    image_trainable=False,
    image_height=32,
    image_width=40,
)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    photos = []
    for image_id in range(11):
        pixels = rng.integers(0, 256, (9, 8, 3), np.uint8)
        path = tmp_path / f"{image_id}.jpg"
        cv2.imwrite(str(path), cv2.resize(pixels, (60, 50)))
        photos.append(CaptionedImage(image_id, path, ("a",)))
    return photos


def test_prepared_embeddings_are_those_of_the_image_model(photos, tmp_path):
    keras.utils.set_random_seed(0)
    encoder = build_image_tower(SETTINGS)
    data = prepare_data(
        photos[:8],
        photos[8:],
        feature_source(SETTINGS, encoder),
        cache=tmp_path / "cache",
        shard_size=3,
    )
    shards = (tmp_path / "cache" / "train").glob("*.rows")
    assert len(list(shards)) == 3
    for features, own in (
        (data.train_features, photos[:8]),
        (data.val_features, photos[8:]),
    ):
        pixels = [read_pixels(p.path.read_bytes(), 32, 40) for p in own]
        expected = encoder.predict_on_batch(np.array(pixels, np.float32))
        assert expected.std() > 1
        rows = [features.rows[photo.image_id] for photo in own]
        found = features.array[rows]
        assert (found.dtype, found.shape) == (np.float16, expected.shape)
        np.testing.assert_allclose(
            found.astype(np.float32), expected, rtol=1e-3, atol=1e-3
        )


def test_photos_are_embedded_in_the_asked_precision(photos, tmp_path):
    keras.utils.set_random_seed(0)
    encoder = build_image_tower(SETTINGS)
    plain = feature_source(SETTINGS, encoder)
    settings = SETTINGS.replace(image_precision="bfloat16")
    source = feature_source(settings, encoder)
    pixels = [read_pixels(p.path.read_bytes(), 32, 40) for p in photos]
    expected = plain.encode(np.array(pixels))
    found = source.encode(np.array(pixels))
    # A processor without units for bfloat16 may compute as before.
    np.testing.assert_allclose(found, expected, atol=0.1 * expected.std())
    name = "auto_mixed_precision_onednn_bfloat16"
    assert not tf.config.optimizer.get_experimental_options().get(name)


def test_cache_of_another_precision_is_told(photos, tmp_path):
    keras.utils.set_random_seed(0)
    encoder = build_image_tower(SETTINGS)
    sides = (photos[:8], photos[8:])
    cache = tmp_path / "cache"
    settings = SETTINGS.replace(image_precision="bfloat16")
    for _ in range(2):  # the second time it is opened
        prepare_data(*sides, feature_source(settings, encoder), cache=cache)
    with pytest.raises(InputError, match="precision"):
        prepare_data(*sides, feature_source(SETTINGS, encoder), cache=cache)
