import dataclasses

import numpy as np
import pytest

from bmt_keras.data.features import FeatureSource, prepare_features
from bmt_keras.errors import InputError

PIXELS = FeatureSource(4, 6)
# Two channels, each a part of the mean level of red.
EMBEDDING = FeatureSource(
    4,
    6,
    encode=lambda pixels: (
        pixels[..., :1].mean(axis=(1, 2)) * np.array([1.0, 0.25])
    ),
    embedding_shape=(2,),
    encoder_settings={"image_model": "mean", "weights": "1234"},
)


def refuse(pixels):
    raise AssertionError("computed again")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "caches" / "train"


def assert_right(features, image_ids):
    """The first channel of each embedding is ten times the image id."""
    assert list(features.rows) == list(image_ids)
    found = np.asarray(features.array)[:, 0]
    assert found.tolist() == [10 * (i % 25) for i in image_ids]


# === Computing ===


def test_pixels_of_every_image_are_kept(make_images, cache):
    features = prepare_features(make_images([3, 1, 2]), PIXELS, folder=cache)
    assert features.array.dtype == np.uint8
    assert features.array.shape == (3, 4, 6, 3)
    assert features.rows == {3: 0, 1: 1, 2: 2}
    expected = np.array([[30, 0, 0], [10, 0, 0], [20, 0, 0]], np.uint8)
    np.testing.assert_array_equal(np.asarray(features.array)[:, 3, 5], expected)


def test_embeddings_of_every_image_are_kept_in_half_precision(
    make_images, cache
):
    calls = []
    features = prepare_features(
        make_images([4, 1, 2], broken=[1]),
        EMBEDDING,
        folder=cache,
        skip_bad=True,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert features.array.dtype == np.float16
    np.testing.assert_array_equal(features.array, [[40, 10], [20, 5]])
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_embeddings_of_another_shape_than_given_are_refused(make_images, cache):
    source = dataclasses.replace(EMBEDDING, embedding_shape=(3,))
    with pytest.raises(ValueError, match=r"embedding_shape=\(3,\), shape=\(2,"):
        prepare_features(make_images([1]), source, folder=cache)


# === Opening ===


def test_kept_features_are_opened_and_not_computed(make_images, cache):
    images = make_images([3, 1])
    first = prepare_features(images, EMBEDDING, folder=cache)
    source = dataclasses.replace(EMBEDDING, encode=refuse)
    again = prepare_features(images, source, folder=str(cache))
    np.testing.assert_array_equal(again.array, first.array)
    assert again.rows == first.rows


OTHER = {"image_model": "mean", "weights": "f" * 16}
PLAIN = {"encode": None, "embedding_shape": None, "encoder_settings": None}


def test_features_of_other_settings_are_refused(
    make_images, cache, monkeypatch
):
    images = make_images([1])
    prepare_features(images, EMBEDDING, folder=cache)
    for changes, key in (
        ({"height": 5}, "`height` is 4 there, expected 5"),
        ({"width": 5}, "`width` is 6 there, expected 5"),
        ({"like_opencv": True}, "`like_opencv` is False .*expected True"),
        (
            {"encoder_settings": OTHER},
            "settings: its `encoder.weights` are others;",
        ),
        (PLAIN, "`encoder` is .*1234.* there, expected None"),
        ({"embedding_shape": (2, 1)}, r"`row` is .*\[2\].*, expected .*\[2, 1"),
    ):
        other = dataclasses.replace(EMBEDDING, **changes)
        with pytest.raises(InputError, match=f"train: .* {key}"):
            prepare_features(images, other, folder=cache)
    monkeypatch.setattr("bmt_keras.data.features.PREPROCESSING_VERSION", -1)
    with pytest.raises(InputError, match="`preprocessing_version` is"):
        prepare_features(images, EMBEDDING, folder=cache)


def test_features_of_other_images_are_refused(make_images, cache):
    first, second = make_images([1, 2])
    prepare_features([first, second], PIXELS, folder=cache)
    other_id = dataclasses.replace(first, image_id=9)
    # Other captions are no other images.
    said = dataclasses.replace(first, captions=("x",))
    prepare_features([said, second], PIXELS, folder=cache)
    rule = "other settings: its `images` are others;"
    for images in ([first], [second, first], [other_id, second]):
        with pytest.raises(InputError, match=rule):
            prepare_features(images, PIXELS, folder=cache)
    first.path.write_bytes(first.path.read_bytes() + b" ")
    with pytest.raises(InputError, match=rule):
        prepare_features([first, second], PIXELS, folder=cache)


# === Many shards ===

NUM_IMAGES, SHARD_SIZE = 200, 20


class MeanLevel:
    """Embeds an image as its mean level of red, and counts images."""

    def __init__(self):
        self.count = 0

    def __call__(self, pixels):
        self.count += len(pixels)
        return pixels[..., 0].mean(axis=(1, 2))[:, None]


@pytest.fixture
def images(make_images):
    few = make_images(range(25))
    return [
        dataclasses.replace(few[i % 25], image_id=i) for i in range(NUM_IMAGES)
    ]


def prepare(images, encode, cache, **options):
    source = FeatureSource(4, 6, encode=encode, embedding_shape=(1,))
    return prepare_features(
        images, source, folder=cache, shard_size=SHARD_SIZE, **options
    )


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes(b"no image")
    return path


def test_bad_image_ends_the_run_and_keeps_the_shards_before_it(
    images, bad, cache, tmp_path
):
    images[50] = dataclasses.replace(images[50], path=bad)
    images[199] = dataclasses.replace(images[199], path=tmp_path / "gone.png")
    encode = MeanLevel()
    with pytest.raises(InputError) as error:
        prepare(images, encode, cache)
    assert str(error.value).startswith("2 of 200 photos cannot be read: ")
    assert f"{bad} (not a decodable" in str(error.value)
    assert "gone.png (expected an image, found: No such file" in str(
        error.value
    )
    assert len(list(cache.parent.glob(".train.partial/*.rows"))) == 2
    # The batch with the bad image is the last that is embedded.
    assert encode.count == 63

    encode = MeanLevel()
    good = [i for i in range(NUM_IMAGES) if i not in (50, 199)]
    assert_right(prepare(images, encode, cache, skip_bad=True), good)
    assert encode.count == NUM_IMAGES - 2 * SHARD_SIZE - 2
    assert_right(prepare(images, refuse, cache), good)


def test_shards_before_a_bad_image_are_whole(images, bad, cache):
    """Also where the batch that holds it begins before its shard."""
    images[61] = dataclasses.replace(images[61], path=bad)
    with pytest.raises(InputError, match="1 of 200 photos"):
        prepare(images, MeanLevel(), cache)
    assert len(list(cache.parent.glob(".train.partial/*.rows"))) == 3
    encode = MeanLevel()
    good = [i for i in range(NUM_IMAGES) if i != 61]
    assert_right(prepare(images, encode, cache, skip_bad=True), good)
    assert encode.count == NUM_IMAGES - 3 * SHARD_SIZE - 1


def test_shard_without_a_good_image_is_left_empty(images, bad, cache):
    for i in range(20, 40):
        images[i] = dataclasses.replace(images[i], path=bad)
    good = [i for i in range(NUM_IMAGES) if not 20 <= i < 40]
    for encode in (MeanLevel(), refuse):
        assert_right(prepare(images, encode, cache, skip_bad=True), good)
    listed = cache.with_name("train-bad-images.txt").read_text().splitlines()
    assert len(listed) == 20
    assert listed[0].startswith(f"{bad} (not a decodable")


# === Bad images ===


@pytest.mark.parametrize("source", [PIXELS, EMBEDDING])
def test_skipped_images_leave_the_rows_of_the_others_right(
    make_images, cache, source, caplog
):
    image_ids = list(range(1, 23))
    images = make_images(image_ids, broken=[1, 5, 17, 22])
    good = [n for n in image_ids if n not in (1, 5, 17, 22)]
    prepare_features(images, source, folder=cache, skip_bad=True)
    assert f"4 of 22 photos cannot be read: {images[0].path}" in caplog.text
    features = prepare_features(images, source, folder=cache)
    assert list(features.rows) == good
    assert len(features.array) == len(good)
    red = np.asarray(features.array).reshape(len(good), -1)[:, 0]
    assert [red[features.rows[n]] for n in good] == [10 * n for n in good]


@pytest.mark.parametrize("image_ids", [[], [1, 2]])
def test_no_image_that_can_be_read_is_refused(make_images, cache, image_ids):
    images = make_images(image_ids, broken=image_ids)
    with pytest.raises(InputError, match=f"none among {len(image_ids)}"):
        prepare_features(images, PIXELS, folder=cache, skip_bad=True)
    if image_ids:
        with pytest.raises(InputError, match="2 of 2 photos cannot be read: "):
            prepare_features(images, PIXELS, folder=cache)
    assert list(cache.parent.iterdir()) == []
