"""Small SavedModels and servers of them, built once a test run."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    PredictionServiceStub,
    add_PredictionServiceServicer_to_server,
)

from bmt_keras.serving.client import AsyncCaptionClient, CaptionClient
from bmt_keras.serving.server import EmbeddedServer

v1 = tf.compat.v1


def _spec(shape, dtype, name):
    return tf.TensorSpec(shape, dtype, name=name)


class Toolbox(tf.Module):
    """One signature for each thing that a server can get wrong."""

    def __init__(self):
        super().__init__()
        self.slope = tf.Variable(0.5)

    @tf.function(input_signature=[_spec([None], tf.float32, "x")])
    def half_plus_two(self, x):
        return {"y": self.slope * x + 2.0}

    @tf.function(
        input_signature=[
            _spec([None], tf.int32, "a"),
            _spec([None], tf.int32, "b"),
        ]
    )
    def two_inputs(self, a, b):
        return {"sum": a + b, "difference": a - b}

    @tf.function(input_signature=[_spec([None], tf.string, "text")])
    def shout(self, text):
        return {"loud": text + "!"}

    @tf.function(input_signature=[_spec([], tf.string, "text")])
    def to_number(self, text):
        return {"number": tf.strings.to_number(text)}

    @tf.function(input_signature=[_spec([], tf.string, "image_bytes")])
    def decode(self, image_bytes):
        return {"pixels": tf.io.decode_image(image_bytes)}

    @tf.function(input_signature=[_spec([], tf.int32, "steps")])
    def spin(self, steps):
        return {"done": tf.while_loop(lambda i: i < steps, _next, [0])[0]}

    @tf.function(input_signature=[_spec([2], tf.float32, "x")])
    def dtypes(self, x):
        names = ["float16", "bfloat16", "float64", "bool", "int8", "int16"]
        names += ["int64", "uint8", "uint16", "uint32", "uint64", "complex64"]
        outputs = {name: tf.cast(x, name) for name in names}
        outputs["string"] = tf.constant(b"a\0")
        return outputs


def _next(step):
    return [step + 1]


class Captioner(tf.Module):
    """Captions the length of the photo; photos that begin with BAD fail."""

    @tf.function(input_signature=[_spec([None], tf.string, "image_bytes")])
    def caption(self, image_bytes):
        bad = tf.strings.regex_full_match(image_bytes, "BAD.*")
        size = tf.strings.length(image_bytes)
        caption = "a photo of " + tf.strings.as_string(size) + " bytes"
        good = tf.cast(~bad, tf.int32)
        return {
            "caption": tf.where(bad, "", caption),
            "score": tf.cast(good, tf.float32) * -0.5,
            "token_scores": tf.cast(good[:, None], tf.float32) * [[-0.5, 0.0]],
            "token_ids": tf.stack([size * good, 0 * size], axis=1),
            "error": tf.where(bad, "Unknown image file format", ""),
        }


def _save_counter(path: Path) -> None:
    """Saves a TensorFlow 1 model with state; its input has a default."""
    with v1.Session(graph=tf.Graph()) as session:
        by = v1.placeholder(tf.int64, [], name="by")
        unit = v1.placeholder(tf.string, [], name="unit")
        total = v1.get_variable(
            "total", initializer=np.int64(0), use_resource=False
        )
        session.run(v1.global_variables_initializer())
        build = v1.saved_model.build_tensor_info
        signature = v1.saved_model.build_signature_def(
            inputs={"by": build(by), "unit": build(unit)},
            outputs={
                "total": build(v1.assign_add(total, by)),
                "unit": build(tf.identity(unit)),
            },
            method_name="tensorflow/serving/predict",
        )
        signature.defaults["by"].CopyFrom(tf.make_tensor_proto(1, tf.int64))
        signature.defaults["unit"].CopyFrom(tf.make_tensor_proto("step"))
        stranger = v1.saved_model.build_signature_def(
            inputs={"by": build(by)},
            outputs={"total": build(total)},
            method_name="elsewhere/train",
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature, "train": stranger},
        )
        builder.save()


@pytest.fixture(scope="session")
def toolbox_path(tmp_path_factory):
    """A base path: versions 7 and 123, and names that are no versions."""
    base = tmp_path_factory.mktemp("toolbox")
    toolbox = Toolbox()
    signatures = {"serving_default": toolbox.half_plus_two}
    tf.saved_model.save(toolbox, str(base / "7"), signatures=signatures)
    names = ["two_inputs", "shout", "to_number", "decode", "spin", "dtypes"]
    signatures |= {name: getattr(toolbox, name) for name in names}
    tf.saved_model.save(toolbox, str(base / "00000123"), signatures=signatures)
    (base / "999.tmp").mkdir()
    (base / "notes").mkdir()
    (base / "1000").write_text("a file")
    return base


@pytest.fixture(scope="session")
def counter_path(tmp_path_factory):
    base = tmp_path_factory.mktemp("counter")
    _save_counter(base / "1")
    return base


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
def toolbox_server(toolbox_path):
    with EmbeddedServer(toolbox_path, "toolbox", port=0) as server:
        yield server


@pytest.fixture(scope="session")
def captioner_server(captioner_path):
    with EmbeddedServer(captioner_path, port=0) as server:
        yield server


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

    def serve(answer, credentials=None):
        server = grpc.server(
            ThreadPoolExecutor(16),
            options=[("grpc.max_receive_message_length", -1)],
        )
        servicer = PredictionServiceServicer()
        servicer.Predict = answer
        add_PredictionServiceServicer_to_server(servicer, server)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.stop(0).wait()


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


@pytest.fixture(scope="session")
def channel(toolbox_server):
    with grpc.insecure_channel(f"127.0.0.1:{toolbox_server.port}") as channel:
        yield channel


@pytest.fixture(scope="session")
def predict_stub(channel):
    return PredictionServiceStub(channel)


@pytest.fixture(scope="session")
def model_stub(channel):
    return ModelServiceStub(channel)


@pytest.fixture(scope="session")
def make_request():
    """Builds a Predict request from NumPy-like inputs or protos."""

    def make(signature="", inputs=None, *, model="toolbox", outputs=()):
        request = PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        for name, value in (inputs or {}).items():
            if not hasattr(value, "tensor_shape"):
                value = tf.make_tensor_proto(value)
            request.inputs[name].CopyFrom(value)
        request.output_filter.extend(outputs)
        return request

    return make


@pytest.fixture(scope="session")
def expect_error():
    """Calls, and returns the code's name and the details of the failure."""

    def call(method, request, timeout=20.0):
        with pytest.raises(grpc.RpcError) as caught:
            method(request, timeout=timeout)
        return caught.value.code().name, caught.value.details()

    return call


@pytest.fixture(scope="session")
def write_warmup():
    """Writes requests as the warm-up file of a version."""

    def write(version_path, requests):
        folder = version_path / "assets.extra"
        folder.mkdir(exist_ok=True)
        path = folder / "tf_serving_warmup_requests"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for request in requests:
                log = PredictionLog()
                log.predict_log.request.CopyFrom(request)
                writer.write(log.SerializeToString())
        return path

    return write
