import dataclasses

import numpy as np
import pytest

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.feature_source import FeatureSource
from bmt_keras.data.features import prepare_features
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
SHARD = "features-00000-of-00001.tfrecord"


def refuse(pixels):
    raise AssertionError("computed again")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "caches" / "train"


# === Computing ===


def test_pixels_of_every_photo_are_kept(make_photos, cache):
    features = prepare_features(make_photos([3, 1, 2]), PIXELS, folder=cache)
    assert features.array.dtype == np.uint8
    assert features.array.shape == (3, 4, 6, 3)
    assert features.rows == {3: 0, 1: 1, 2: 2}
    expected = np.array([[30, 0, 0], [10, 0, 0], [20, 0, 0]], np.uint8)
    np.testing.assert_array_equal(np.asarray(features.array)[:, 3, 5], expected)


def test_embeddings_of_every_photo_are_kept_in_half_precision(
    make_photos, cache
):
    features = prepare_features(make_photos([4, 2]), EMBEDDING, folder=cache)
    assert features.array.dtype == np.float16
    np.testing.assert_array_equal(features.array, [[40, 10], [20, 5]])


def test_photos_of_several_batches_keep_their_rows(make_photos, cache):
    image_ids = [n % 25 for n in range(7, 7 + 25)]
    features = prepare_features(make_photos(image_ids), PIXELS, folder=cache)
    for image_id in image_ids:
        row = features.rows[image_id]
        assert features.array[row][0, 0, 0] == 10 * image_id


def test_progress_counts_up_to_all_photos(make_photos, cache):
    calls = []
    prepare_features(
        make_photos(range(1, 19), broken=[2]),
        PIXELS,
        folder=cache,
        skip_bad=True,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, 18) for done in range(1, 19)]


def test_rows_are_copies_that_leave_the_file_alone(make_photos, cache):
    features = prepare_features(make_photos([1]), PIXELS, folder=cache)
    features.array[:][:] = 0
    assert features.array[0].any()


def test_embeddings_of_another_shape_than_told_are_refused(make_photos, cache):
    source = dataclasses.replace(EMBEDDING, embedding_shape=(3,))
    with pytest.raises(ValueError, match=r"embedding_shape=\(3,\), shape=\(2,"):
        prepare_features(make_photos([1]), source, folder=cache)
    with pytest.raises(ValueError, match="must be given together"):
        dataclasses.replace(EMBEDDING, embedding_shape=None)


# === Opening ===


@pytest.mark.parametrize("source", [PIXELS, EMBEDDING])
def test_kept_features_are_opened_and_not_computed(make_photos, cache, source):
    photos = make_photos([3, 1])
    first = prepare_features(photos, source, folder=cache)
    changed = (cache / SHARD).stat().st_mtime_ns
    if source.encode is not None:
        source = dataclasses.replace(source, encode=refuse)
    again = prepare_features(photos, source, folder=str(cache))
    np.testing.assert_array_equal(again.array, first.array)
    assert again.rows == first.rows
    assert (cache / SHARD).stat().st_mtime_ns == changed


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"height": 5}, "`height` is 4 there, expected 5"),
        ({"width": 5}, "`width` is 6 there, expected 5"),
        (
            {"encoder_settings": {"image_model": "mean", "weights": "99"}},
            "`encoder` is .*1234.* there, expected .*99",
        ),
        (
            {
                "encode": None,
                "embedding_shape": None,
                "encoder_settings": None,
            },
            "`encoder` is .*1234.* there, expected None",
        ),
    ],
)
def test_features_of_other_settings_are_refused(
    make_photos, cache, changes, key
):
    photos = make_photos([1])
    prepare_features(photos, EMBEDDING, folder=cache)
    other = dataclasses.replace(EMBEDDING, **changes)
    with pytest.raises(InputError, match=f"train: .* {key}"):
        prepare_features(photos, other, folder=cache)


def test_features_of_an_earlier_preprocessing_are_refused(
    make_photos, cache, monkeypatch
):
    photos = make_photos([1])
    prepare_features(photos, PIXELS, folder=cache)
    monkeypatch.setattr(
        "bmt_keras.data.feature_source.PREPROCESSING_VERSION", -1
    )
    with pytest.raises(InputError, match="`preprocessing_version` is"):
        prepare_features(photos, PIXELS, folder=cache)


def without_last(photos):
    return photos[:-1]


def in_other_order(photos):
    return photos[::-1]


def with_another_id(photos):
    return [dataclasses.replace(photos[0], image_id=9), *photos[1:]]


def with_a_changed_file(photos):
    photos[0].path.write_bytes(photos[0].path.read_bytes() + b" ")
    return photos


@pytest.mark.parametrize(
    "change",
    [without_last, in_other_order, with_another_id, with_a_changed_file],
)
def test_features_of_other_photos_are_refused(make_photos, cache, change):
    photos = make_photos([1, 2])
    prepare_features(photos, PIXELS, folder=cache)
    with pytest.raises(InputError, match="other settings: `photos` is"):
        prepare_features(change(photos), PIXELS, folder=cache)


def test_other_captions_of_the_same_photos_are_no_other_features(
    make_photos, cache
):
    prepare_features(make_photos([1]), PIXELS, folder=cache)
    prepare_features(make_photos([1], captions=["x"]), PIXELS, folder=cache)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"[1, 2]",
        b'{"settings": ',
        b"\xff\xfe",
        b'{"settings": 3, "shard_size": 4, "shards": {}}',
        b'{"settings": {}, "shard_size": "x", "shards": {}}',
        b'{"settings": {}, "shard_size": 4, "shards": []}',
        b'{"settings": {}, "shard_size": 4, "shards": {"a": ["b"]}}',
    ],
)
def test_foreign_or_spoilt_folder_is_refused(make_photos, cache, content):
    photos = make_photos([1, 2])
    prepare_features(photos, PIXELS, folder=cache)
    (cache / "manifest.json").unlink()
    if content is not None:
        (cache / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match="train: expected features of photos"):
        prepare_features(photos, PIXELS, folder=cache)


def test_cache_of_one_array_is_refused_as_an_earlier_one(make_photos, cache):
    cache.mkdir(parents=True)
    np.save(cache / "features.npy", np.zeros((2, 4, 6, 3), np.uint8))
    (cache / "manifest.json").write_text('{"settings": {}, "image_ids": [1]}')
    with pytest.raises(InputError, match=r"train: .* an earlier version"):
        prepare_features(make_photos([1]), PIXELS, folder=cache)


def test_file_in_place_of_the_folder_is_refused(make_photos, tmp_path):
    (tmp_path / "cache").write_text("mine")
    with pytest.raises(InputError, match="cache: expected features of photos"):
        prepare_features(make_photos([1]), PIXELS, folder=tmp_path / "cache")
    assert (tmp_path / "cache").read_text() == "mine"


# === Bad photos ===


def test_bad_photos_are_all_counted_and_named(make_photos, cache, tmp_path):
    photos = make_photos(range(1, 20), broken=[2, 18])
    photos.append(CaptionedImage(20, tmp_path / "gone.jpg", ("a",)))
    with pytest.raises(InputError) as error:
        prepare_features(photos, PIXELS, folder=cache)
    message = str(error.value)
    assert message.startswith("3 of 20 photos cannot be read: ")
    assert f"{photos[1].path} (not a decodable image" in message
    assert f"{photos[17].path} (not a decodable image" in message
    assert f"{photos[19].path} (no such file)" in message


def test_failure_leaves_nothing_behind(make_photos, cache):
    with pytest.raises(InputError):
        prepare_features(make_photos([1, 2], broken=[2]), PIXELS, folder=cache)
    failing = dataclasses.replace(EMBEDDING, encode=refuse)
    with pytest.raises(AssertionError, match="computed again"):
        prepare_features(make_photos([1]), failing, folder=cache)
    assert list(cache.parent.iterdir()) == []


@pytest.mark.parametrize("source", [PIXELS, EMBEDDING])
def test_skipped_photos_leave_the_rows_of_the_others_right(
    make_photos, cache, source
):
    image_ids = list(range(1, 23))
    photos = make_photos(image_ids, broken=[1, 5, 17, 22])
    good = [n for n in image_ids if n not in (1, 5, 17, 22)]
    prepare_features(photos, source, folder=cache, skip_bad=True)
    features = prepare_features(photos, source, folder=cache)
    assert list(features.rows) == good
    assert len(features.array) == len(good)
    red = np.asarray(features.array).reshape(len(good), -1)[:, 0]
    assert [red[features.rows[n]] for n in good] == [10 * n for n in good]


def test_skipped_photos_are_told_in_the_log(make_photos, cache, caplog):
    photos = make_photos([1, 2], broken=[1])
    prepare_features(photos, PIXELS, folder=cache, skip_bad=True)
    assert f"1 of 2 photos cannot be read: {photos[0].path}" in caplog.text


@pytest.mark.parametrize("image_ids", [[], [1, 2]])
def test_no_photo_that_can_be_read_is_refused(make_photos, cache, image_ids):
    photos = make_photos(image_ids, broken=image_ids)
    with pytest.raises(InputError, match=f"none among {len(image_ids)}"):
        prepare_features(photos, PIXELS, folder=cache, skip_bad=True)
    assert list(cache.parent.iterdir()) == []
