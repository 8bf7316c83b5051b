"""Features made on Apache Beam, which needs an environment of its own."""

import dataclasses
import json
import sys

import cv2
import keras
import numpy as np
import pytest

from bmt_keras.commands import main
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.features import prepare_features, write_features
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower
from bmt_keras.settings import Settings
from bmt_keras.training.beam import BeamWriter, FillShard
from bmt_keras.training.data import feature_source

# Beam closes some of its own sockets and loops late.
pytestmark = [
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("default::UserWarning"),
]

SETTINGS = Settings().replace(
    image_model="VGG16",
    image_layer="block2_pool",
    image_trainable=False,
    image_height=32,
    image_width=40,
)
NUM_IMAGES, SHARD_SIZE = 21, 5


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    images = []
    for image_id in range(NUM_IMAGES):
        pixels = rng.integers(0, 256, (9, 8, 3), np.uint8)
        path = folder / f"{image_id}.jpg"
        cv2.imwrite(str(path), cv2.resize(pixels, (60, 50)))
        images.append(CaptionedImage(image_id, path, ("a",)))
    return images


@pytest.fixture(scope="module")
def source():
    keras.utils.set_random_seed(SETTINGS.optimization.seed)
    return feature_source(SETTINGS, build_image_tower(SETTINGS))


@pytest.fixture(scope="module")
def writer():
    return BeamWriter(SETTINGS, runner="DirectRunner")


def prepare(images, source, folder, writer, **options):
    options |= {"folder": folder, "writer": writer}
    return prepare_features(images, source, shard_size=SHARD_SIZE, **options)


def assert_close(features, expected):
    one, other = (np.asarray(x.array, np.float32) for x in (features, expected))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    assert one.std() > 1


def test_beam_gives_the_local_store_and_goes_on_with_it(
    images, source, writer, tmp_path
):
    folder, local = tmp_path / "beam" / "train", tmp_path / "local" / "train"
    features = prepare(images, source, folder, writer)
    expected = prepare(images, source, local, write_features)
    assert_close(features, expected)
    assert list(folder.parent.iterdir()) == [folder]
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in local.iterdir()}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest == json.loads((local / "manifest.json").read_text())
    assert manifest["settings"]["encoder"]["image_model"] == "VGG16"
    assert manifest["settings"]["encoder"]["weights"]

    kept = local / "00001-of-00005.rows"
    changed = kept.stat().st_mtime_ns
    (local / "00003-of-00005.rows").unlink()
    assert_close(prepare(images, source, local, writer), features)
    assert kept.stat().st_mtime_ns == changed


def test_bad_images_are_named_and_the_others_shards_kept(
    images, source, writer, tmp_path
):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    images = list(images)
    images[7] = dataclasses.replace(images[7], path=tmp_path / "bad.jpg")
    with pytest.raises(InputError) as error:
        prepare(images, source, tmp_path / "train", writer)
    assert str(error.value).startswith("1 of 21 photos cannot be read: ")
    assert f"{tmp_path / 'bad.jpg'} (not a decodable" in str(error.value)
    hidden = tmp_path / ".train.partial"
    assert len(list(hidden.glob("*.rows"))) == 4
    folder = tmp_path / "train"
    features = prepare(images, source, folder, writer, skip_bad=True)
    assert list(features.rows) == [i for i in range(NUM_IMAGES) if i != 7]
    assert not hidden.exists()
    assert not (folder / "tasks").exists()


def test_worker_with_other_weights_is_refused(source):
    fill = FillShard(SETTINGS.replace(seed=1), source.settings, skip_bad=False)
    with pytest.raises(InputError, match="A worker makes features by"):
        fill.setup()


def test_unknown_runner_is_refused():
    with pytest.raises(InputError, match="Received: runner=NoSuchRunner"):
        BeamWriter(SETTINGS, runner="NoSuchRunner")


def test_command_embeds_on_a_runner(images, tmp_path, monkeypatch, capfd):
    names = [
        {"id": each.image_id, "file_name": each.path.name} for each in images
    ]
    captions = [
        {"id": each.image_id, "image_id": each.image_id, "caption": "an image"}
        for each in images
    ]
    content = {"images": names, "annotations": captions}
    (tmp_path / "captions.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    arguments = (
        *("bmt", "prepare", "--captions", "captions.json"),
        *("--images", images[0].path.parent, "--cache", "cache"),
        *("--runner", "DirectRunner", "--shard-size", 4),
        *("--runner-options", "--direct_num_workers=1"),
        *("--image-height", 8, "--image-width", 8),
    )
    monkeypatch.setattr(sys, "argv", [str(each) for each in arguments])
    with pytest.raises(SystemExit) as end:
        main()
    result = capfd.readouterr()
    assert not end.value.code, result.err
    assert result.out == "cache: 17 training and 4 validation images\n"
    assert len(list((tmp_path / "cache" / "train").iterdir())) == 6
