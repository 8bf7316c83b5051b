import copy
import errno
import functools
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from huggingface_hub import ModelCard
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

import bmt_keras
from bmt_keras import contract
from bmt_keras.errors import InputError
from bmt_keras.export import export_captioner, saved_model
from bmt_keras.export.check import check_signatures
from bmt_keras.export.description import read_metrics, write_manifest
from bmt_keras.export.signatures import CaptionerSignatures
from bmt_keras.presets import PRESETS
from bmt_keras.serving.client import CaptionClient
from bmt_keras.serving.server import EmbeddedServer

SIGNATURES = {
    *("serving_default", "caption_with_length", "embed_image"),
    *("caption_embedding", "masked_lm", "fill_mask", "score_caption"),
}


# === What is written with the model ===


@pytest.fixture(scope="module")
def warmup_requests(version):
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    return [
        PredictionLog.FromString(record).predict_log.request
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]


def test_warm_up_asks_for_captions(warmup_requests):
    asked = [
        (r.model_spec.signature_name, tuple(r.output_filter))
        for r in warmup_requests
    ]
    assert asked == [
        (contract.SERVING_DEFAULT, ()),
        (contract.CAPTION_WITH_LENGTH, ()),
    ]
    for request in warmup_requests:
        assert request.model_spec.name == contract.MODEL_NAME


def test_warm_up_examples_are_good_and_one_each(warmup_requests, session):
    for request in warmup_requests:
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        assert {len(value) for value in inputs.values()} == {1}
        outputs = session.run(request.model_spec.signature_name, **inputs)
        assert not outputs.get(contract.ERROR, np.array([b""])).any()


def test_embedded_server_warms_up_on_it_and_captions(
    version, captioner, photos
):
    with (
        EmbeddedServer(version.parent, port=0) as server,
        CaptionClient(f"127.0.0.1:{server.port}") as client,
    ):
        result = client.caption_one(photos[0])
    assert result.caption == captioner.caption(photos[:1])[0].text


def test_manifest_tells_what_was_exported(captioner, version):
    content = json.loads((version / "bmt.json").read_text())
    assert content["version"] == 1
    assert content["bmt_keras"] == bmt_keras.__version__
    assert content["preset"] is None
    assert set(content["signatures"]) == SIGNATURES
    text = content["settings"]["text"]
    assert text["sequence_length"] == captioner.settings.text.sequence_length
    proto = captioner.tokenizer.proto
    assert content["vocabulary"] == {
        "size": captioner.tokenizer.vocabulary_size,
        "sha256": hashlib.sha256(proto).hexdigest(),
    }
    assert content["preprocessing"]["height"] == 16
    assert content["preprocessing"]["max_pixels"] == 2**26


def test_manifest_names_the_preset_of_the_settings(tiny_captioner, tmp_path):
    captioner = copy.copy(tiny_captioner)
    captioner.settings = PRESETS["notebook"]
    write_manifest(tmp_path, captioner, version=1, signatures=[])
    content = json.loads((tmp_path / "bmt.json").read_text())
    assert content["preset"] == "notebook"


def test_model_card_tells_signatures_and_figures(version, textless_version):
    card = (version / "README.md").read_text()
    metadata = ModelCard(card).data
    assert metadata.library_name == "keras"
    assert metadata.pipeline_tag == "image-to-text"
    assert all(f"| `{name}` |" in card for name in SIGNATURES)
    assert "| cider_d | 0.4568 |" in card
    assert "| num_photos | 8 |" in card
    card = (textless_version / "README.md").read_text()
    assert contract.FILL_MASK not in card
    assert "None were given" in card


def test_figures_are_numbers_by_name(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"cider_d": 0.5}')
    assert read_metrics(path) == {"cider_d": 0.5}
    for content in ("no json", "[1]", '{"cider_d": "high"}'):
        path.write_text(content)
        with pytest.raises(InputError, match=r"metrics.json: expected figures"):
            read_metrics(path)


# === Whole or not at all ===


@pytest.fixture(scope="module")
def signatures(tiny_captioner):
    """The tiny captioner's, which trace once."""
    signatures = CaptionerSignatures(tiny_captioner.graph)
    signatures.trace = functools.cache(signatures.trace)
    return signatures


@pytest.fixture
def traced(signatures, monkeypatch):
    """Exports of the tiny captioner do not trace it anew."""
    monkeypatch.setattr(
        saved_model, "CaptionerSignatures", lambda _: signatures
    )


@pytest.mark.usefixtures("traced")
def test_versions_count_up_and_are_never_overwritten(
    tiny_captioner, tmp_path, monkeypatch
):
    monkeypatch.setattr(saved_model, "check_signatures", lambda *args: None)
    base = tmp_path / "bmt"
    (base / "notes").mkdir(parents=True)
    assert export_captioner(tiny_captioner, base, version=7).name == "7"
    assert export_captioner(tiny_captioner, base).name == "8"
    with pytest.raises(InputError, match="7: the version exists already"):
        export_captioner(tiny_captioner, base, version=7)
    with pytest.raises(InputError, match="at least 1"):
        export_captioner(tiny_captioner, base, version=0)
    assert sorted(p.name for p in base.iterdir()) == ["7", "8", "notes"]


@pytest.mark.usefixtures("traced")
def test_weights_that_changed_meanwhile_publish_nothing(
    tiny_captioner, tmp_path, monkeypatch
):
    write = saved_model.write_model_card
    weight = tiny_captioner.model.weights[0]
    before = weight.numpy()
    # The same number everywhere would be lost in a layer normalisation.
    noise = np.random.default_rng(0).normal(size=before.shape)

    def write_and_change(*args, **options):
        write(*args, **options)
        weight.assign(before + noise)

    monkeypatch.setattr(saved_model, "write_model_card", write_and_change)
    try:
        with pytest.raises(RuntimeError, match="than the model in memory"):
            export_captioner(tiny_captioner, tmp_path / "bmt")
    finally:
        weight.assign(before)
    assert list((tmp_path / "bmt").iterdir()) == []


def test_model_that_does_not_load_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)does not run .*SavedModel"):
        check_signatures(tmp_path, {}, {})


# The weights fail at 4 kB; 1.5 MB have room for them, but not for the graph.
SIZES = (4_000, 1_500_000)
EXPORT = """
import json, os, resource, sys
from bmt_keras.captioner import Captioner
from bmt_keras.export import export_captioner
captioner = Captioner.from_preset(sys.argv[1])
for base, size in zip(sys.argv[2::2], map(int, sys.argv[3::2])):
    if size:
        # No file may grow larger: a write fails as it does on a full disk.
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        told = export_captioner(captioner, base)
    except OSError as error:
        told = error
    print(json.dumps([str(told), os.listdir(base)]))
"""
MOUNT = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'


@pytest.fixture(scope="module")
def full_disks(tiny_captioner, tmp_path_factory):
    """By size, a disk, what its export said, and what it left there."""
    folder = tmp_path_factory.mktemp("full")
    tiny_captioner.save_to_preset(folder / "captioner")
    bases = {size: folder / str(size) for size in SIZES}
    mount = ["unshare", "-rm"]
    for size, base in bases.items():
        base.mkdir()
        mount += ["sh", "-c", MOUNT, str(size), base]
    # The disks are gone with the command. Without the right to mount them,
    # the files are too small instead.
    can_mount = not subprocess.run([*mount, "true"]).returncode
    command = [sys.executable, "-c", EXPORT, folder / "captioner"]
    for size, base in bases.items():
        command += [base, "0" if can_mount else str(size)]
    done = subprocess.run(
        [*mount, *command] if can_mount else command,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {
        size: (base, *line, done.stderr)
        for (size, base), line in zip(bases.items(), lines, strict=True)
    }


@pytest.mark.parametrize("size", SIZES)
def test_full_disk_publishes_nothing(full_disks, size):
    base, told, left, errors = full_disks[size]
    assert f"{base / '1'}: the model cannot be written, nothing was" in told
    assert left == [], errors


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", ["write_manifest", "write_model_card"])
def test_disk_that_is_full_at_last_publishes_nothing(
    tiny_captioner, tmp_path, monkeypatch, name
):
    def fail(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saved_model, name, fail)
    base = tmp_path / "bmt"
    with pytest.raises(OSError, match=r"nothing was published: .*No space"):
        export_captioner(tiny_captioner, base)
    assert list(base.iterdir()) == []
