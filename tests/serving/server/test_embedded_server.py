"""The server finds the latest version, warms it up and owns its port."""

import functools
import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer
from bmt_keras.serving.server.servable import Servable
from bmt_keras.serving.server.version_folders import find_version_folders
from bmt_keras.serving.server.warmup import warm_up


@pytest.fixture
def counter_copy(counter_path, tmp_path):
    shutil.copytree(counter_path, tmp_path / "counter")
    return tmp_path / "counter"


def _load(base_path):
    server = EmbeddedServer(base_path, port=0)
    server.start()
    server.stop()


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _can_connect(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_version_folders_are_the_numeric_ones(served_models):
    folders = find_version_folders(served_models / "half_plus")
    # A file, a name that is no number and a number over 64 bits are none.
    assert [(f.version, f.path.name) for f in folders] == [
        (7, "7"),
        (123, "00000123"),
    ]


def test_versions_tell_what_is_served(served_models):
    server = EmbeddedServer(served_models / "half_plus", port=0)
    assert server.versions == {}
    with server:
        assert server.versions == {"bmt": [123]}


def test_missing_base_path_is_told(tmp_path):
    with pytest.raises(ServingError, match=r"Not found: .*nowhere"):
        _load(tmp_path / "nowhere")


def test_base_path_without_versions_is_told(tmp_path):
    (tmp_path / "bmt").mkdir()
    with pytest.raises(ServingError, match=r"version number.*Found: \['bmt'"):
        _load(tmp_path)


def test_folder_without_a_model_is_told(tmp_path):
    (tmp_path / "4").mkdir()
    with pytest.raises(ServingError, match=r"Version 4 in .* cannot be loaded"):
        _load(tmp_path)


def test_model_of_another_tag_is_told(tmp_path):
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        builder = v1.saved_model.Builder(str(tmp_path / "1"))
        builder.add_meta_graph_and_variables(session, ["train"])
        builder.save()
    with pytest.raises(ServingError, match="tagged 'serve'"):
        _load(tmp_path)


def test_port_in_use_is_told(captioner_path, captioner_server):
    port = captioner_server.port
    server = EmbeddedServer(captioner_path, port=port)
    with pytest.raises(
        ServingError, match=rf"127.0.0.1:{port}: Address already in use\. Stop"
    ):
        server.start()


def test_port_is_free_again_after_stop(counter_path):
    port = _free_port()
    for _ in range(2):
        with EmbeddedServer(counter_path, port=port):
            assert _can_connect(port)
        assert not _can_connect(port)


def test_server_starts_once(counter_path):
    with EmbeddedServer(counter_path, port=0) as server:
        with pytest.raises(ServingError, match="starts once"):
            server.start()
        assert _can_connect(server.port)
    with pytest.raises(ServingError, match="starts once"):
        server.start()


def test_wait_ends_when_the_server_stops(counter_path):
    server = EmbeddedServer(counter_path, port=0)
    server.start()
    waiting = threading.Thread(target=server.wait)
    waiting.start()
    assert waiting.is_alive()
    server.stop()
    waiting.join(timeout=20)
    assert not waiting.is_alive()


def test_warmup_requests_run_before_serving(
    counter_copy, make_request, write_warmup
):
    # The request's model name does not matter: the version is already chosen.
    request = make_request("", {"by": np.int64(20), "unit": "m"}, model="any")
    write_warmup(counter_copy / "1", [request, request])
    with (
        EmbeddedServer(counter_copy, port=0) as server,
        server._catalog.borrow(ModelSpec(name="bmt")) as servable,
    ):
        outputs = servable.signatures["serving_default"].outputs
        (total,) = servable.run({"by:0": np.int64(2)}, [outputs["total"].name])
    assert total == 42


def test_warmup_leaves_out_requests_that_are_not_answered_here(
    counter_copy, write_warmup, make_request
):
    request = make_request("", {"by": np.int64(1), "unit": "m"})
    path = write_warmup(counter_copy / "1", [])
    other = PredictionLog()
    other.classify_log.request.model_spec.name = "m"
    answered = PredictionLog()
    answered.predict_log.request.CopyFrom(request)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in (other, answered):
            writer.write(log.SerializeToString())
    (folder,) = find_version_folders(counter_copy)
    servable = Servable(folder)
    assert warm_up(servable, folder) == 1
    servable.close()


def test_ops_of_tensorflow_text_are_loaded_where_a_model_has_them(
    tmp_path, counter_path
):
    save = """
import sys, tensorflow as tf, tensorflow_text as text
module = tf.Module()
split = text.WhitespaceTokenizer()
@tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
def words(text):
    return {"words": split.tokenize(text).to_tensor()}
module.words = words
tf.saved_model.save(module, sys.argv[1], signatures=words)
"""
    load = """
import sys
from pathlib import Path
from bmt_keras.serving.server.served_models import ServedModels
from bmt_keras.serving.server.catalog import Catalog
from bmt_keras.serving.server.model_config import make_model_config
for base in sys.argv[1:]:
    models = ServedModels(Catalog())
    assert models.configure(make_model_config("m", Path(base))) == {}
    print("tensorflow_text" in sys.modules)
"""
    run = functools.partial(
        subprocess.run, check=True, stdout=subprocess.PIPE, text=True
    )
    run([sys.executable, "-c", save, str(tmp_path / "1")])
    result = run([sys.executable, "-c", load, str(counter_path), str(tmp_path)])
    assert result.stdout.split() == ["False", "True"]


def test_failing_warmup_request_fails_the_load(
    counter_copy, make_request, write_warmup
):
    good = make_request("", {"by": np.int64(1), "unit": "m"})
    bad = make_request("", {"by": "one", "unit": "m"})
    write_warmup(counter_copy / "1", [good, bad])
    port = _free_port()
    with pytest.raises(
        ServingError, match=r"record 2 of .* with INVALID_ARGUMENT"
    ):
        EmbeddedServer(counter_copy, port=port).start()
    assert not _can_connect(port)


def test_warmup_of_over_1000_records_fails_the_load(
    counter_copy, make_request, write_warmup
):
    write_warmup(counter_copy / "1", [make_request()] * 1001)
    with pytest.raises(ServingError, match="at most 1000 records"):
        _load(counter_copy)


def test_warmup_file_of_another_format_fails_the_load(
    counter_copy, write_warmup
):
    write_warmup(counter_copy / "1", []).write_bytes(b"not a record" * 9)
    with pytest.raises(ServingError, match="uncompressed TFRecord"):
        _load(counter_copy)


@pytest.mark.parametrize("record", [b"\xff", b""])
def test_warmup_record_of_another_kind_fails_the_load(
    counter_copy, write_warmup, record
):
    path = write_warmup(counter_copy / "1", [])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record)
    with pytest.raises(ServingError, match="must be a PredictionLog"):
        _load(counter_copy)
