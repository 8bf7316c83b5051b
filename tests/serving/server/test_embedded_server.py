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
from bmt_keras.serving.server.model_config import find_versions


@pytest.fixture
def counter_copy(counter_path, tmp_path):
    shutil.copytree(counter_path, tmp_path / "counter")
    return tmp_path / "counter"


@pytest.fixture
def free_port(nowhere):
    return int(nowhere.rpartition(":")[2])


def _can_connect(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_versions_are_the_numeric_folders(served_models):
    versions = find_versions(served_models / "half_plus")
    # A file, a name that is no number and a number over 64 bits are none.
    names = {number: path.name for number, path in versions.items()}
    assert names == {7: "7", 123: "00000123"}
    server = EmbeddedServer(served_models / "half_plus", port=0)
    assert server.versions == {}
    with server:
        assert server.versions == {"bmt": [123]}


def _write_other_tag(base):
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        builder = v1.saved_model.Builder(str(base / "1"))
        builder.add_meta_graph_and_variables(session, ["train"])
        builder.save()


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (lambda base: base.rmdir(), r"Not found: .*base"),
        (lambda base: (base / "a").mkdir(), r"version number.*Found: \['a'"),
        (lambda base: (base / "4").mkdir(), r"Version 4 in .* cannot be load"),
        (_write_other_tag, "tagged 'serve'"),
    ],
)
def test_folder_without_a_model_is_reported(tmp_path, write, part):
    base = tmp_path / "base"
    base.mkdir()
    write(base)
    with pytest.raises(ServingError, match=part):
        EmbeddedServer(base, port=0).start()


def test_port_in_use_is_reported_before_a_model_is_loaded(
    tmp_path, captioner_server
):
    port = captioner_server.port
    server = EmbeddedServer(tmp_path, port=port)
    with pytest.raises(
        ServingError, match=rf"127.0.0.1:{port}: Address already in use\. Stop"
    ):
        server.start()


def test_port_is_free_again_after_stop(counter_path, free_port):
    for _ in range(2):
        with EmbeddedServer(counter_path, port=free_port):
            assert _can_connect(free_port)
        assert not _can_connect(free_port)


def test_server_starts_once_and_waiting_ends_with_it(counter_path):
    server = EmbeddedServer(counter_path, port=0)
    server.start()
    with pytest.raises(ServingError, match="starts once"):
        server.start()
    assert _can_connect(server.port)
    waiting = threading.Thread(target=server.wait)
    waiting.start()
    assert waiting.is_alive()
    server.stop()
    waiting.join(timeout=20)
    assert not waiting.is_alive()
    with pytest.raises(ServingError, match="starts once"):
        server.start()


# === Warm-up ===


def test_warmup_requests_run_before_serving(
    counter_copy, make_request, write_warmup
):
    # The request's model name does not matter: the version is already chosen.
    request = make_request("", {"by": np.int64(20), "unit": "m"}, model="any")
    # A kind that is not answered here is left out.
    other = PredictionLog()
    other.classify_log.request.model_spec.name = "m"
    requests = [request, other.SerializeToString(), request]
    write_warmup(counter_copy / "1", requests)
    with (
        EmbeddedServer(counter_copy, port=0) as server,
        server._models.borrow(ModelSpec(name="bmt")) as servable,
    ):
        signature = servable.signatures["serving_default"]
        outputs = servable.run(signature, {"by": np.int64(2)}, ["total"])
    assert outputs == {"total": 42}


def test_failing_warmup_request_fails_the_load(
    counter_copy, make_request, write_warmup, free_port
):
    good = make_request("", {"by": np.int64(1), "unit": "m"})
    bad = make_request("", {"by": "one", "unit": "m"})
    write_warmup(counter_copy / "1", [good, bad])
    with pytest.raises(
        ServingError, match=r"record 2 of .* with INVALID_ARGUMENT"
    ):
        EmbeddedServer(counter_copy, port=free_port).start()
    assert not _can_connect(free_port)


@pytest.mark.parametrize(
    ("records", "part"),
    [
        ([b""] * 1001, "at most 1000 records"),
        ([b"\xff"], "must be a PredictionLog"),
        ([b""], "must be a PredictionLog"),
        (None, "uncompressed TFRecord"),
    ],
    ids=["too many", "no message", "an empty message", "no records"],
)
def test_warmup_file_that_cannot_be_read_fails_the_load(
    counter_copy, write_warmup, records, part
):
    path = write_warmup(counter_copy / "1", records or [])
    if records is None:
        path.write_bytes(b"not a record" * 9)
    with pytest.raises(ServingError, match=part):
        EmbeddedServer(counter_copy, port=0).start()


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
from bmt_keras.serving.server import EmbeddedServer
for base in sys.argv[1:]:
    with EmbeddedServer(base, port=0):
        print("tensorflow_text" in sys.modules)
"""
    run = functools.partial(
        subprocess.run, check=True, stdout=subprocess.PIPE, text=True
    )
    run([sys.executable, "-c", save, str(tmp_path / "1")])
    result = run([sys.executable, "-c", load, str(counter_path), str(tmp_path)])
    assert result.stdout.split() == ["False", "True"]
