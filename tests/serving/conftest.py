"""Small SavedModels and servers of them, built once a test run."""

import asyncio
import json
import runpy
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

from bmt_keras.serving.client import AsyncCaptionClient, CaptionClient
from bmt_keras.serving.server import EmbeddedServer

MODELS = Path(__file__).parent / "conformance" / "conformance_models.py"


def _spec(shape, dtype, name):
    return tf.TensorSpec(shape, dtype, name=name)


class Captioner(tf.Module):
    """Captions the length of the photo; photos that begin with BAD fail."""

    @tf.function(input_signature=[_spec([None], tf.string, "image_bytes")])
    def caption(self, image_bytes):
        bad = tf.strings.regex_full_match(image_bytes, "BAD.*")
        size = tf.strings.length(image_bytes)
        caption = "a photo of " + tf.strings.as_string(size) + " bytes"
        good = tf.cast(~bad, tf.int32)
        error = "not a photo; received " + tf.strings.as_string(size) + " bytes"
        return {
            "caption": tf.where(bad, "", caption),
            "score": tf.cast(good, tf.float32) * -0.5,
            "token_scores": tf.cast(good[:, None], tf.float32) * [[-0.5, 0.0]],
            "token_ids": tf.stack([size * good, 0 * size], axis=1),
            "error": tf.where(bad, error, ""),
        }


@pytest.fixture(scope="session")
def served_models(tmp_path_factory):
    """The models of the conformance suite: a folder each, and models.config."""
    folder = tmp_path_factory.mktemp("models")
    runpy.run_path(str(MODELS))["write_models"](folder, str(folder))
    return folder


@pytest.fixture(scope="session")
def captioner_path(tmp_path_factory):
    base = tmp_path_factory.mktemp("captioner")
    captioner = Captioner()
    tf.saved_model.save(
        captioner,
        str(base / "3"),
        signatures={"serving_default": captioner.caption},
    )
    return base


@pytest.fixture(scope="session")
def captioner_server(captioner_path):
    with EmbeddedServer(captioner_path, port=0) as server:
        yield server


@pytest.fixture
def captions(captioner_server):
    """The address of that server."""
    return f"127.0.0.1:{captioner_server.port}"


@pytest.fixture
def nowhere():
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
    return target


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A CA, and what it signed for the server and a client, as files."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name, *options):
        command = ["openssl", "req", "-x509", "-nodes", "-days", "2"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-subj", f"/CN={name}", *options]
        command += ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    make("ca")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key")
    names = "subjectAltName=DNS:captions.test"
    make("server", *signed, "-addext", names)
    make("client", *signed)
    make("stranger")
    return folder


# === The client and its servers ===


@pytest.fixture(params=["blocking", "asynchronous"])
def ask(request):
    """Calls a method of either client, and returns what it found."""

    def blocking(target, method, *args, client=None, **kwargs):
        with CaptionClient(target, **(client or {})) as opened:
            found = getattr(opened, method)(*args, **kwargs)
            return list(found) if method == "stream" else found

    def asynchronous(target, method, *args, client=None, **kwargs):
        async def run():
            async with AsyncCaptionClient(target, **(client or {})) as opened:
                found = getattr(opened, method)(*args, **kwargs)
                if method == "stream":
                    return [pair async for pair in found]
                return await found

        return asyncio.run(run())

    return {"blocking": blocking, "asynchronous": asynchronous}[request.param]


@pytest.fixture
def serve_answers():
    """Serves what a function of request and context answers; a real server."""
    servers = []

    def serve(answer, credentials=None, address="127.0.0.1:0"):
        server = grpc.server(
            ThreadPoolExecutor(16),
            options=[("grpc.max_receive_message_length", -1)],
        )
        servicer = PredictionServiceServicer()
        servicer.Predict = answer
        add_PredictionServiceServicer_to_server(servicer, server)
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    def stop():
        while servers:
            servers.pop().stop(0).wait()

    serve.stop = stop
    yield serve
    stop()


@pytest.fixture(scope="session")
def answer_captions():
    """Answers a request as `Captioner` does, with tensors as raw bytes."""

    def answer(request, context=None):
        photos = request.inputs["image_bytes"].string_val
        count = len(photos)
        response = PredictResponse()
        for name, value in {
            "caption": [b"a photo of %d bytes" % len(each) for each in photos],
            "score": np.full(count, -0.5, np.float32),
            "token_scores": np.full((count, 2), -0.5, np.float32),
            "token_ids": np.full((count, 2), 7, np.int32),
            "error": [b""] * count,
        }.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    return answer


# === Requests ===


@pytest.fixture(scope="session")
def make_request():
    """Builds a Predict request from NumPy-like inputs or protos."""

    def make(signature="", inputs=None, *, model="toolbox", outputs=(), **spec):
        request = PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        if "label" in spec:
            request.model_spec.version_label = spec["label"]
        for name, value in (inputs or {}).items():
            if not hasattr(value, "tensor_shape"):
                value = tf.make_tensor_proto(value)
            request.inputs[name].CopyFrom(value)
        request.output_filter.extend(outputs)
        return request

    return make


@pytest.fixture(scope="session")
def wait_until():
    """Waits until a claim holds."""

    def wait(holds, seconds=30):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def expect_error():
    """Calls, and returns the code's name and the details of the failure."""

    def call(method, request, timeout=20.0):
        with pytest.raises(grpc.RpcError) as caught:
            method(request, timeout=timeout)
        return caught.value.code().name, caught.value.details()

    return call


@pytest.fixture(scope="session")
def send_rest():
    """Sends a REST request; returns the code and the document."""

    def send(address, path, document=None, *, body=None):
        if document is not None:
            body = json.dumps(document).encode()
        request = urllib.request.Request(f"http://{address}{path}", data=body)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return send


@pytest.fixture(scope="session")
def write_warmup():
    """Writes requests, or bytes, as the warm-up file of a version."""

    def write(version_path, requests):
        folder = version_path / "assets.extra"
        folder.mkdir(exist_ok=True)
        path = folder / "tf_serving_warmup_requests"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for request in requests:
                if isinstance(request, PredictRequest):
                    log = PredictionLog()
                    log.predict_log.request.CopyFrom(request)
                    request = log.SerializeToString()
                writer.write(request)
        return path

    return write
