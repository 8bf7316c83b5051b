"""Features in many shards: killed runs, lost and spoilt shards."""

import dataclasses
import logging
import signal
import subprocess
import sys

import numpy as np
import pytest

from bmt_keras.data.feature_source import FeatureSource
from bmt_keras.data.features import prepare_features
from bmt_keras.errors import InputError

NUM_PHOTOS, SHARD_SIZE = 200, 20

# Encodes batches of 16 photos and is killed while it encodes the tenth: 144
# rows are written, seven shards and a part of the eighth.
KILLED = """
import os, signal, sys
from pathlib import Path
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.feature_source import FeatureSource
from bmt_keras.data.features import prepare_features

calls = []

def encode(pixels):
    calls.append(len(pixels))
    if len(calls) == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return pixels[..., 0].mean(axis=(1, 2))[:, None]

photos = [
    CaptionedImage(i, Path(sys.argv[1], f"{i % 25}.png"), ("a",)) for i in range(200)
]
source = FeatureSource(4, 6, encode=encode, embedding_shape=(1,))
prepare_features(photos, source, folder=sys.argv[2], shard_size=20)
"""


class MeanLevel:
    """Embeds a photo as its mean level of red, and counts photos."""

    def __init__(self):
        self.count = 0

    def __call__(self, pixels):
        self.count += len(pixels)
        return pixels[..., 0].mean(axis=(1, 2))[:, None]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "caches" / "train"


@pytest.fixture
def source():
    return FeatureSource(4, 6, encode=MeanLevel(), embedding_shape=(1,))


@pytest.fixture
def photos(make_photos):
    few = make_photos(range(25))
    return [
        dataclasses.replace(few[i % 25], image_id=i) for i in range(NUM_PHOTOS)
    ]


def prepare(photos, source, cache, **options):
    return prepare_features(
        photos, source, folder=cache, shard_size=SHARD_SIZE, **options
    )


def shards(folder):
    return sorted(folder.glob("features-*.tfrecord"))


def partial(cache):
    return cache.with_name(".train.partial")


def assert_right(features, image_ids=range(NUM_PHOTOS)):
    assert list(features.rows) == list(image_ids)
    expected = [[10 * (i % 25)] for i in image_ids]
    np.testing.assert_array_equal(np.asarray(features.array), expected)


def test_features_lie_in_shards_beside_a_manifest(photos, source, cache):
    assert_right(prepare(photos, source, cache))
    assert len(shards(cache)) == 10
    assert shards(cache)[7].name == "features-00007-of-00010.tfrecord"
    names = {path.name for path in cache.iterdir()}
    assert names == {path.name for path in shards(cache)} | {"manifest.json"}
    assert list(cache.parent.iterdir()) == [cache]
    assert_right(prepare(photos, source, cache))
    assert source.encode.count == NUM_PHOTOS


def test_killed_run_loses_one_shard_at_most(photos, source, cache, caplog):
    folder = photos[0].path.parent
    command = [sys.executable, "-c", KILLED, str(folder), str(cache)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not cache.exists()
    done = shards(partial(cache))
    assert len(done) == 7
    written = [path.stat().st_mtime_ns for path in done]
    # What the killed run was writing.
    (leftover,) = partial(cache).glob(".*.tfrecord")

    with caplog.at_level(logging.INFO):
        features = prepare(photos, source, cache)
    assert "7 of 10 shards are there" in caplog.text
    assert source.encode.count == NUM_PHOTOS - 7 * SHARD_SIZE
    assert_right(features)
    kept = shards(cache)[:7]
    assert [path.stat().st_mtime_ns for path in kept] == written
    assert list(cache.parent.iterdir()) == [cache]
    assert not (cache / leftover.name).exists()
    assert len(list(cache.iterdir())) == 11


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupted(photos, source, cache):
    """A run that has ended within its third shard."""

    def encode(pixels):
        if source.encode.count >= 48:
            raise Interrupted
        return source.encode(pixels)

    with pytest.raises(Interrupted):
        prepare(photos, dataclasses.replace(source, encode=encode), cache)
    source.encode.count = 0
    assert len(shards(partial(cache))) == 2
    return partial(cache)


def test_run_goes_on_with_the_shards_it_began_with(
    photos, source, cache, interrupted
):
    features = prepare_features(photos, source, folder=cache, shard_size=33)
    assert_right(features)
    assert len(shards(cache)) == 10
    assert source.encode.count == NUM_PHOTOS - 2 * SHARD_SIZE


def test_shards_of_other_settings_are_not_gone_on_with(
    photos, source, cache, interrupted
):
    other = dataclasses.replace(source, encoder_settings={"weights": "2"})
    assert_right(prepare(photos, other, cache))
    assert source.encode.count == NUM_PHOTOS
    assert_right(prepare(photos, other, cache))


def test_foreign_leftovers_are_removed(photos, source, cache, interrupted):
    (interrupted / "tasks").mkdir()
    (interrupted / "tasks" / "1.json").write_text("{}")
    (interrupted / "manifest.json").write_text("{")
    assert_right(prepare(photos, source, cache))
    assert source.encode.count == NUM_PHOTOS
    assert not (cache / "tasks").exists()


def test_spoilt_shard_of_an_interrupted_run_is_made_anew(
    photos, source, cache, interrupted, caplog
):
    path = shards(interrupted)[1]
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    assert_right(prepare(photos, source, cache))
    assert f"{path} is made anew: corrupted record at" in caplog.text
    assert source.encode.count == NUM_PHOTOS - SHARD_SIZE


def test_two_processes_do_not_write_one_cache(photos, source, cache):
    refused = []

    def encode(pixels):
        with pytest.raises(InputError, match="another process is writing"):
            prepare(photos, source, cache)
        refused.append(1)
        return source.encode(pixels)

    features = prepare(
        photos, dataclasses.replace(source, encode=encode), cache
    )
    assert_right(features)
    assert refused


# === Reading what is there ===


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def drop_a_record(path):
    content = path.read_bytes()
    path.write_bytes(content[: -(len(content) // SHARD_SIZE)])


def take_the_next_ones_place(path):
    path.write_bytes(shards(path.parent)[4].read_bytes())


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (alter, "corrupted record at"),
        (truncate, "expected a multiple of"),
        (drop_a_record, "other photos than in the manifest"),
        (take_the_next_ones_place, "other photos than in the manifest"),
    ],
)
def test_spoilt_shard_is_named_and_can_be_made_anew(
    photos, source, cache, spoil, found
):
    prepare(photos, source, cache)
    source.encode.count = 0
    path = shards(cache)[3]
    spoil(path)
    with pytest.raises(InputError) as error:
        prepare(photos, source, cache)
    assert str(error.value).startswith(f"{path}: expected a sound shard")
    assert found in str(error.value)
    assert "delete this file" in str(error.value)

    path.unlink()
    assert_right(prepare(photos, source, cache))
    assert source.encode.count == SHARD_SIZE
    assert list(cache.parent.iterdir()) == [cache]


# === Bad photos ===


def test_bad_photo_ends_the_run_and_keeps_the_shards_before_it(
    photos, source, cache, tmp_path
):
    bad = tmp_path / "photos" / "bad.png"
    bad.write_bytes(b"no photo")
    photos[50] = dataclasses.replace(photos[50], path=bad)
    photos[199] = dataclasses.replace(photos[199], path=tmp_path / "gone.png")
    with pytest.raises(InputError) as error:
        prepare(photos, source, cache)
    assert str(error.value).startswith("2 of 200 photos cannot be read: ")
    assert f"{bad} (not a decodable" in str(error.value)
    assert "gone.png (no such file)" in str(error.value)
    assert len(shards(partial(cache))) == 2
    assert source.encode.count == 48
    source.encode.count = 0

    features = prepare(photos, source, cache, skip_bad=True)
    good = [i for i in range(NUM_PHOTOS) if i not in (50, 199)]
    assert_right(features, good)
    assert source.encode.count == NUM_PHOTOS - 2 * SHARD_SIZE - 2
    assert_right(prepare(photos, source, cache), good)


def test_shard_without_a_good_photo_is_left_empty(photos, source, cache):
    (photos[0].path.parent / "no.png").write_bytes(b"no photo")
    for i in range(20, 40):
        path = photos[0].path.parent / "no.png"
        photos[i] = dataclasses.replace(photos[i], path=path)
    good = [i for i in range(NUM_PHOTOS) if not 20 <= i < 40]
    for _ in range(2):
        assert_right(prepare(photos, source, cache, skip_bad=True), good)
    assert shards(cache)[1].stat().st_size == 0
