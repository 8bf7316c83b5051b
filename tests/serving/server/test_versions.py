"""Versions come and go while a server runs."""

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer, read_model_config
from bmt_keras.serving.server.model_config import make_model_config
from bmt_keras.serving.server.served_models import ServedModels
from bmt_keras.serving.server.status import StatusError

AVAILABLE, UNLOADING, END = (
    ModelVersionStatus.AVAILABLE,
    ModelVersionStatus.UNLOADING,
    ModelVersionStatus.END,
)
SPEC = ModelSpec(name="m")


@pytest.fixture
def base(tmp_path):
    return tmp_path / "m"


@pytest.fixture
def publish(publish, counter_path, base):
    return functools.partial(publish, counter_path / "1", base)


@pytest.fixture
def served(base):
    """Models that are not loaded yet, and their configuration."""
    models = ServedModels()
    yield models, make_model_config("m", base)
    models.close()


@pytest.fixture
def models(served, publish):
    """Models of which version 1 is loaded."""
    served_models, config = served
    publish(1)
    served_models.configure(config)
    return served_models


def _states(models):
    return {s.version: s.state for s in models.list_statuses(SPEC)}


def _count(servable):
    signature = servable.signatures["serving_default"]
    outputs = servable.run(signature, {"by": np.int64(1)}, ["total"])
    return int(outputs["total"])


# === What breaks a version ===


DATA = "variables/variables.data-00000-of-00001"
INDEX = "variables/variables.index"
GRAPH = "saved_model.pb"


def _cut(name, size):
    def spoil(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:size])

    return spoil


def _damage(name):
    def spoil(folder):
        content = bytearray((folder / name).read_bytes())
        for at in range(0, len(content), 5):
            content[at] ^= 0xFF
        (folder / name).write_bytes(content)

    return spoil


def _remove(name):
    return lambda folder: (folder / name).unlink()


def _remove_weights(folder):
    shutil.rmtree(folder / "variables")


def _fail_warmup(folder):
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    path.write_bytes(b"not a record" * 9)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_cut(DATA, -1), DATA),
        (_damage(DATA), DATA),
        (_remove(DATA), DATA),
        (_cut(INDEX, -9), INDEX),
        (_damage(INDEX), INDEX),
        (_remove(INDEX), INDEX),
        (_remove_weights, INDEX),
        (_cut(GRAPH, 100), GRAPH),
        (_cut(GRAPH, 0), GRAPH),
        (_damage(GRAPH), GRAPH),
        (_remove(GRAPH), GRAPH),
        (_fail_warmup, "assets.extra/tf_serving_warmup_requests"),
    ],
)
def test_broken_new_version_leaves_the_old_one(models, publish, spoil, named):
    publish(2, spoil=spoil)
    models.look_again()
    assert _states(models) == {2: END, 1: AVAILABLE}
    failed, _ = models.list_statuses(SPEC)
    assert failed.status.error_code != 0
    assert f"/m/2/{named}" in failed.status.error_message
    with models.borrow(SPEC) as servable:
        assert servable.version == 1
        assert _count(servable) == 1


def test_failed_version_is_tried_again_once_its_folder_was_gone(
    models, publish, base
):
    publish(2, spoil=_remove_weights)
    models.look_again()
    # Mended in place, it stays failed.
    shutil.copytree(base / "1" / "variables", base / "2" / "variables")
    models.look_again()
    assert _states(models) == {2: END, 1: AVAILABLE}

    shutil.rmtree(base / "2")
    models.look_again()
    publish(2)
    models.look_again()
    assert _states(models) == {2: AVAILABLE, 1: END}


# === Versions that come and go ===


def test_request_in_flight_keeps_its_version(models, publish):
    with models.borrow(SPEC) as old:
        publish(2)
        models.look_again()
        assert _states(models) == {2: AVAILABLE, 1: UNLOADING}
        with models.borrow(SPEC) as new:
            assert new.version == 2
        assert _count(old) == 1
    assert _states(models) == {2: AVAILABLE, 1: END}
    with pytest.raises(RuntimeError, match="closed Session"):
        _count(old)


def test_removed_versions_end(models, publish, base):
    publish(2)
    models.look_again()
    assert models.available() == {"m": [2]}
    shutil.rmtree(base / "2")
    models.look_again()
    # The one before takes its place.
    assert _states(models) == {2: END, 1: AVAILABLE}
    shutil.rmtree(base / "1")
    models.look_again()
    assert _states(models) == {2: END, 1: END}


def test_model_whose_base_path_is_gone_stays(models, publish, base):
    base.rename(base.with_name("elsewhere"))
    models.look_again()
    assert _states(models) == {1: AVAILABLE}


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("latest { num_versions: 2 }", [2, 3]),
        ("specific { versions: [1, 3, 9] }", [1, 3]),
    ],
)
def test_policy_chooses_versions(served, publish, policy, versions):
    models, config = served
    for version in (1, 2, 3):
        publish(version)
    text_format.Parse(policy, config.config[0].model_version_policy)
    models.configure(config)
    assert models.available() == {"m": versions}


def test_what_is_no_version_is_named_once_and_ignored(
    served, publish, base, caplog
):
    models, config = served
    publish(1)
    others = ["notes", str(2**63), "9" * 200, "-2", "2.0", "\u0662", "2\udcff"]
    for name in others:
        (base / name).mkdir()
    (base / "3").write_text("a file")
    models.configure(config)
    models.look_again()
    assert models.available() == {"m": [1]}
    named = [
        Path(record.args[0]).name
        for record in caplog.records
        if record.msg.startswith("Ignored")
    ]
    assert sorted(named) == sorted([*others, "3"])


# === Configuration ===


def test_new_label_may_name_a_version_to_come(served, publish):
    models, config = served
    publish(1)
    config.config[0].version_labels["stable"] = 1
    config.config[0].version_labels["canary"] = 2
    models.configure(config)
    asked = ModelSpec(name="m", version_label="canary")
    with pytest.raises(StatusError, match=r"Specific\(m, 2\)"):
        models.borrow(asked).__enter__()
    publish(2)
    models.look_again()
    with models.borrow(asked) as servable:
        assert servable.version == 2


def test_change_to_a_model_that_is_not_there_is_reported(
    base, publish, serve, make_request, expect_error
):
    publish(1)
    request = ReloadConfigRequest()
    models = request.config.model_config_list
    models.CopyFrom(make_model_config("m", base))
    models.MergeFrom(make_model_config("none", Path("/nowhere")))
    with serve(base, "m") as (_, stub, channel):
        change = ModelServiceStub(channel).HandleReloadConfigRequest
        code, message = expect_error(change, request)
        assert code == "UNKNOWN"
        assert message.startswith("1 model(s) did not become available: ")
        assert "none due to error: " in message
        assert "Not found: /nowhere" in message
        # Others are served.
        stub.Predict(make_request(model="m"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "No such file"),
        ("model_config_list {", "Cannot serve"),
        ("custom_model_config {}", "holds a custom_model_config"),
        ('name: "m" base_path: "m"', "absolute path"),
        ('name: "m" base_path: "/m"', "model_platform"),
        (
            'name: "m" base_path: "/m" model_platform: "torch"',
            "must have the model_platform tensorflow; got torch",
        ),
    ],
)
def test_config_file_that_cannot_be_served_is_reported(tmp_path, text, part):
    path = tmp_path / "models.config"
    if text is not None:
        if text.startswith("name"):
            text = f"model_config_list {{ config {{ {text} }} }}"
        path.write_text(text)
    with pytest.raises(ServingError, match=part):
        read_model_config(path)


def test_config_file_is_read_again(base, publish, tmp_path, wait_until, caplog):
    path = tmp_path / "models.config"

    def write(text):
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)

    def is_logged(part):
        return part in caplog.text

    model = f'base_path: "{base}" model_platform: "tensorflow"'
    publish(1)
    write("")
    with EmbeddedServer(path, port=0, config_poll_seconds=0.02) as server:
        assert server.versions == {}
        write(f'model_config_list {{ config {{ name: "m" {model} }} }}')
        wait_until(lambda: server.versions == {"m": [1]})
        for text, part in (
            ("model_config_list {", "Cannot serve"),
            ('model_config_list { config { name: "m" } }', "absolute path"),
        ):
            write(text)
            wait_until(lambda part=part: is_logged(part))
        path.unlink()
        wait_until(lambda: is_logged("No such file"))
        # Empty, it changes nothing, as in TensorFlow Serving.
        write("")
        assert server.versions == {"m": [1]}
        write(f'model_config_list {{ config {{ name: "n" {model} }} }}')
        wait_until(lambda: server.versions == {"n": [1]})
        write("model_config_list {}")
        wait_until(lambda: server.versions == {})
