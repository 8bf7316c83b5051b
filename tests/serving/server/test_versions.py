"""Versions come and go while a server runs."""

import shutil
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    ModelVersionStatus,
)
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer, read_model_config
from bmt_keras.serving.server.catalog import Catalog
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
def publish(counter_path, base):
    """Writes a version beside its name, then renames it."""

    def write(version, *, spoil=lambda folder: None):
        partial = base / f".{version}"
        shutil.copytree(counter_path / "1", partial)
        spoil(partial)
        partial.rename(base / str(version))

    return write


@pytest.fixture
def served(base):
    catalog = Catalog()
    models = ServedModels(catalog)
    yield catalog, models, make_model_config("m", base)
    catalog.close()


def _states(catalog):
    return {s.version: s.state for s in catalog.list_statuses(SPEC)}


def _count(servable):
    outputs = servable.signatures["serving_default"].outputs
    (total,) = servable.run({"by:0": np.int64(1)}, [outputs["total"].name])
    return int(total)


# === What breaks a version ===


def _cut_weights(folder):
    (path,) = (folder / "variables").glob("variables.data-*")
    path.write_bytes(path.read_bytes()[:-1])


def _remove_weights(folder):
    shutil.rmtree(folder / "variables")


def _cut_graph(folder):
    path = folder / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:100])


def _remove_graph(folder):
    (folder / "saved_model.pb").unlink()


def _fail_warmup(folder):
    (folder / "assets.extra").mkdir()
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff")


SPOILS = [
    _cut_weights,
    _remove_weights,
    _cut_graph,
    _remove_graph,
    _fail_warmup,
]


@pytest.mark.parametrize("spoil", SPOILS)
def test_broken_new_version_leaves_the_old_one(served, publish, spoil):
    catalog, models, config = served
    publish(1)
    assert models.configure(config) == {}
    publish(2, spoil=spoil)
    models.look_again()
    assert _states(catalog) == {2: END, 1: AVAILABLE}
    failed, _ = catalog.list_statuses(SPEC)
    assert failed.status.error_code != 0
    assert "/m/2" in failed.status.error_message
    with catalog.borrow(SPEC) as servable:
        assert servable.version == 1
        assert _count(servable) == 1


def test_failed_version_is_tried_again_once_its_folder_was_gone(
    served, publish, base
):
    catalog, models, config = served
    publish(1)
    models.configure(config)
    publish(2, spoil=_remove_weights)
    models.look_again()
    # Mended in place, it stays failed.
    shutil.copytree(base / "1" / "variables", base / "2" / "variables")
    models.look_again()
    assert _states(catalog) == {2: END, 1: AVAILABLE}

    shutil.rmtree(base / "2")
    models.look_again()
    publish(2)
    models.look_again()
    assert _states(catalog) == {2: AVAILABLE, 1: END}


# === Versions that come and go ===


def test_request_in_flight_keeps_its_version(served, publish):
    catalog, models, config = served
    publish(1)
    models.configure(config)
    with catalog.borrow(SPEC) as old:
        publish(2)
        models.look_again()
        assert _states(catalog) == {2: AVAILABLE, 1: UNLOADING}
        with catalog.borrow(SPEC) as new:
            assert new.version == 2
        assert _count(old) == 1
    assert _states(catalog) == {2: AVAILABLE, 1: END}
    with pytest.raises(StatusError, match="Version 1 has been unloaded"):
        _count(old)


def test_removed_version_gives_way_to_the_one_before(served, publish, base):
    catalog, models, config = served
    publish(1)
    publish(2)
    models.configure(config)
    assert catalog.available("m") == [2]
    shutil.rmtree(base / "2")
    models.look_again()
    assert _states(catalog) == {2: END, 1: AVAILABLE}


def test_model_without_versions_on_disk_ends(served, publish, base):
    catalog, models, config = served
    publish(1)
    models.configure(config)
    shutil.rmtree(base / "1")
    models.look_again()
    assert _states(catalog) == {1: END}


def test_model_whose_base_path_is_gone_stays(served, publish, base):
    catalog, models, config = served
    publish(1)
    models.configure(config)
    base.rename(base.with_name("elsewhere"))
    models.look_again()
    assert _states(catalog) == {1: AVAILABLE}


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("", [3]),
        ("latest { num_versions: 2 }", [2, 3]),
        ("all {}", [1, 2, 3]),
        ("specific { versions: [1, 3, 9] }", [1, 3]),
    ],
)
def test_policy_chooses_versions(tmp_path, base, publish, policy, versions):
    for version in (1, 2, 3):
        publish(version)
    path = tmp_path / "models.config"
    path.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{base}" '
        f'model_platform: "tensorflow" '
        f"model_version_policy {{ {policy} }} }} }}"
    )
    catalog = Catalog()
    ServedModels(catalog).configure(read_model_config(path))
    assert catalog.available("m") == versions
    catalog.close()


# === Configuration ===


def test_new_label_may_name_a_version_to_come(served, publish):
    catalog, models, config = served
    publish(1)
    config.config[0].version_labels["stable"] = 1
    config.config[0].version_labels["canary"] = 2
    models.configure(config)
    asked = ModelSpec(name="m", version_label="canary")
    with pytest.raises(StatusError, match=r"Specific\(m, 2\)"):
        catalog.borrow(asked).__enter__()
    publish(2)
    models.look_again()
    with catalog.borrow(asked) as servable:
        assert servable.version == 2


def test_new_model_that_fails_is_told_and_others_serve(served, publish):
    catalog, models, config = served
    publish(1)
    config.config.add(
        name="none", base_path="/nowhere", model_platform="tensorflow"
    )
    missing = models.configure(config)
    assert list(missing) == ["none"]
    assert "Not found: /nowhere" in missing["none"]
    assert catalog.available("m") == [1]


def test_change_to_a_model_that_is_not_there_is_told(
    base, publish, make_request, expect_error
):
    publish(1)
    request = ReloadConfigRequest()
    request.config.model_config_list.CopyFrom(make_model_config("m", base))
    request.config.model_config_list.config.add(
        name="none", base_path="/nowhere", model_platform="tensorflow"
    )
    with (
        EmbeddedServer(base, "m", port=0) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        change = ModelServiceStub(channel).HandleReloadConfigRequest
        code, message = expect_error(change, request)
        assert code == "UNKNOWN"
        assert message.startswith("1 model(s) did not become available: ")
        assert "none due to error: " in message
        PredictionServiceStub(channel).Predict(make_request(model="m"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("model_config_list {", "Cannot read"),
        ("", "Found in .*nothing, no model"),
        (
            'model_config_list { config { name: "m" base_path: "m" } }',
            "absolute path",
        ),
        (
            'model_config_list { config { name: "m" base_path: "/m" } }',
            "model_platform",
        ),
        (
            'model_config_list { config { name: "m" base_path: "/m" '
            'model_platform: "torch" } }',
            "must be of platform tensorflow; got torch",
        ),
    ],
)
def test_config_file_that_cannot_be_served_is_told(tmp_path, text, part):
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(ServingError, match=part):
        read_model_config(path)


def test_missing_config_file_is_told(tmp_path):
    with pytest.raises(ServingError, match="No such file"):
        read_model_config(tmp_path / "models.config")


def test_running_server_follows_the_disk(base, publish, make_request):
    publish(1)
    with (
        EmbeddedServer(base, "m", port=0, poll_seconds=0.02) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        publish(2)
        stub = ModelServiceStub(channel)
        request = GetModelStatusRequest(model_spec=SPEC)
        wanted = [(2, AVAILABLE), (1, END)]
        end = time.monotonic() + 30
        states = []
        while states != wanted and time.monotonic() < end:
            statuses = stub.GetModelStatus(request).model_version_status
            states = [(status.version, status.state) for status in statuses]
            time.sleep(0.02)
        assert states == wanted
        response = PredictionServiceStub(channel).Predict(
            make_request("", {"by": np.int64(1)}, model="m")
        )
    assert response.model_spec.version.value == 2
