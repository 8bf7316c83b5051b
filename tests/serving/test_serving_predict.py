"""Predict answers as TensorFlow Serving does, in success and in failure."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras.serving.server import EmbeddedServer
from bmt_keras.serving.server.predict import predict
from bmt_keras.serving.server.servable import Servable
from bmt_keras.serving.server.status import StatusError
from bmt_keras.serving.server.version_folders import find_version_folders

INVALID = "INVALID_ARGUMENT"
X = {"x": np.float32([1.0, 2.0])}
AB = {"a": np.int32([5]), "b": np.int32([3])}


@pytest.fixture(scope="module")
def counter(counter_path):
    servable = Servable(find_version_folders(counter_path)[-1])
    yield servable
    servable.close()


def test_prediction_is_the_model_output(predict_stub, make_request):
    response = predict_stub.Predict(make_request("", X))
    y = response.outputs["y"]
    assert list(y.float_val) == [2.5, 3.0]
    assert y.tensor_content == b""
    assert [dim.size for dim in y.tensor_shape.dim] == [2]


def test_response_names_resolved_signature_and_version(
    predict_stub, make_request
):
    spec = predict_stub.Predict(make_request("", X)).model_spec
    assert (spec.name, spec.signature_name) == ("toolbox", "serving_default")
    assert spec.version.value == 123


def test_version_of_request_is_served_when_loaded(predict_stub, make_request):
    request = make_request("", X)
    request.model_spec.version.value = 123
    assert predict_stub.Predict(request).model_spec.version.value == 123


def test_empty_filter_returns_every_output(predict_stub, make_request):
    outputs = predict_stub.Predict(make_request("two_inputs", AB)).outputs
    assert {name: list(t.int_val) for name, t in outputs.items()} == {
        "sum": [8],
        "difference": [2],
    }


def test_filter_returns_named_output_alone(predict_stub, make_request):
    request = make_request("two_inputs", AB, outputs=["difference"])
    outputs = predict_stub.Predict(request).outputs
    assert list(outputs) == ["difference"]
    assert list(outputs["difference"].int_val) == [2]


def test_strings_keep_their_bytes(predict_stub, make_request):
    request = make_request("shout", {"text": [b"a\0", b"\xff"]})
    loud = predict_stub.Predict(request).outputs["loud"]
    assert list(loud.string_val) == [b"a\0!", b"\xff!"]


def test_every_dtype_comes_in_its_value_field(predict_stub, make_request):
    request = make_request("dtypes", {"x": np.float32([0.0, 3.0])})
    outputs = predict_stub.Predict(request).outputs
    assert list(outputs["float16"].half_val) == [0, 0x4200]
    assert list(outputs["bfloat16"].half_val) == [0, 0x4040]
    assert list(outputs["float64"].double_val) == [0.0, 3.0]
    assert list(outputs["bool"].bool_val) == [False, True]
    for name in ("int8", "int16", "uint8", "uint16"):
        assert list(outputs[name].int_val) == [0, 3]
    assert list(outputs["int64"].int64_val) == [0, 3]
    assert list(outputs["uint32"].uint32_val) == [0, 3]
    assert list(outputs["uint64"].uint64_val) == [0, 3]
    assert list(outputs["complex64"].scomplex_val) == [0.0, 0.0, 3.0, 0.0]
    assert list(outputs["string"].string_val) == [b"a\0"]
    assert all(not tensor.tensor_content for tensor in outputs.values())


def test_calls_at_the_same_time_do_not_mix(predict_stub, make_request):
    def shout(number):
        request = make_request("shout", {"text": [b"%d" % number]})
        return predict_stub.Predict(request).outputs["loud"].string_val[0]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(shout, range(64)))
    assert answers == [b"%d!" % number for number in range(64)]


def test_tensorflow_1_model_keeps_its_state(counter, make_request):
    request = make_request("", {"by": np.int64(5), "unit": "m"})
    first = predict(counter, request).outputs["total"].int64_val[0]
    second = predict(counter, request).outputs["total"].int64_val[0]
    assert second - first == 5


def test_missing_input_takes_its_default(counter, make_request):
    response = predict(counter, make_request("", {"by": np.int64(0)}))
    assert list(response.outputs["unit"].string_val) == [b"step"]


def test_unknown_name_beside_defaults_is_refused(counter, make_request):
    request = make_request("", {"z": 1})
    with pytest.raises(StatusError) as caught:
        predict(counter, request)
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message == (
        "Inputs contains invalid name. Used request inputs: , request input: z"
    )


def test_signature_of_a_strange_method_is_refused(counter, make_request):
    with pytest.raises(StatusError) as caught:
        predict(counter, make_request("train", {"by": np.int64(1)}))
    assert caught.value.code == grpc.StatusCode.INTERNAL
    assert caught.value.message.endswith("Was: elsewhere/train")


def _truncated_bytes():
    proto = tf.make_tensor_proto(np.float32([1.0, 2.0]))
    proto.tensor_content = proto.tensor_content[:-1]
    return proto


FAILURES = {
    "unknown signature": (
        ("x", X, ()),
        "FAILED_PRECONDITION",
        'Serving signature key "x" not found.',
    ),
    "missing input": (
        ("", {}, ()),
        INVALID,
        "input size does not match signature: 0!=1 len({}) != len({x}). "
        "Sent extra: {}. Missing but required: {x}.",
    ),
    "extra input": (
        ("", X | {"b": 1, "a": 1}, ()),
        INVALID,
        "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). "
        "Sent extra: {a,b}. Missing but required: {}.",
    ),
    "wrong name": (
        ("", {"foo": 1.0}, ()),
        INVALID,
        "Signature input alias: x(feed name: serving_default_x:0) not found "
        "in request and no default value provided. Inputs expected to be in "
        "the request {foo}, or default input alias set: ",
    ),
    "unparsable tensor": (
        ("", {"x": _truncated_bytes()}, ()),
        INVALID,
        "tensor parsing error: x",
    ),
    "tensor without a dtype": (
        ("", {"x": tf.make_tensor_proto(1).__class__()}, ()),
        INVALID,
        "tensor parsing error: x",
    ),
    "unknown output": (
        ("two_inputs", AB, ("sum", "z")),
        INVALID,
        "output tensor alias not found in signature: z Outputs expected to "
        "be in the set {difference,sum}.",
    ),
    "duplicate output": (
        ("two_inputs", AB, ("sum", "sum")),
        INVALID,
        "duplicate output tensor alias: sum",
    ),
    "wrong dtype": (
        ("shout", {"text": np.float32([1.0])}, ()),
        INVALID,
        "Expects arg[0] to be string but float is provided",
    ),
    "input comes before filter": (
        ("", {"x": _truncated_bytes()}, ("z",)),
        INVALID,
        "tensor parsing error: x",
    ),
    "signature comes before input": (
        ("nope", {"x": _truncated_bytes()}, ("z",)),
        "FAILED_PRECONDITION",
        'Serving signature key "nope" not found.',
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_bad_request_gets_code_and_message(
    predict_stub, make_request, expect_error, case
):
    (signature, inputs, outputs), code, message = FAILURES[case]
    request = make_request(signature, inputs, outputs=outputs)
    assert expect_error(predict_stub.Predict, request) == (code, message)


def test_request_without_model_spec_is_refused(predict_stub, expect_error):
    answer = expect_error(predict_stub.Predict, PredictRequest())
    assert answer == (INVALID, "Missing ModelSpec")


def test_request_without_model_name_is_refused(
    predict_stub, make_request, expect_error
):
    answer = expect_error(predict_stub.Predict, make_request("s", model=""))
    assert answer == (INVALID, "ModelSpec has no name specified.")


def test_unknown_model_is_not_found(predict_stub, make_request, expect_error):
    answer = expect_error(predict_stub.Predict, make_request(model="m"))
    message = "Servable not found for request: Latest(m)"
    assert answer == ("NOT_FOUND", message)


def test_unloaded_version_is_not_found(
    predict_stub, make_request, expect_error
):
    request = make_request("", X)
    request.model_spec.version.value = 7
    answer = expect_error(predict_stub.Predict, request)
    message = "Servable not found for request: Specific(toolbox, 7)"
    assert answer == ("NOT_FOUND", message)


def test_unknown_label_is_refused(predict_stub, make_request, expect_error):
    request = make_request("", X)
    request.model_spec.version_label = "canary"
    answer = expect_error(predict_stub.Predict, request)
    message = "Unrecognized servable version label: canary"
    assert answer == (INVALID, message)


def test_wrong_shape_fails_in_the_model(
    predict_stub, make_request, expect_error
):
    inputs = {"a": np.int32([1, 2]), "b": np.int32([1, 2, 3])}
    code, message = expect_error(
        predict_stub.Predict, make_request("two_inputs", inputs)
    )
    assert code == INVALID
    assert "Incompatible shapes: [2] vs. [3]" in message


def test_bad_image_is_an_invalid_argument(
    predict_stub, make_request, expect_error
):
    request = make_request("decode", {"image_bytes": b"no photo"})
    code, message = expect_error(predict_stub.Predict, request)
    assert code == INVALID
    assert message.startswith("Unknown image file format. One of JPEG")


def test_long_message_is_cut_at_1024_characters(
    predict_stub, make_request, expect_error
):
    request = make_request("to_number", {"text": b"n" * 3000})
    code, message = expect_error(predict_stub.Predict, request)
    assert code == INVALID
    assert message.startswith("StringToNumberOp could not correctly convert")
    assert message.endswith("n...TRUNCATED")
    assert len(message) == 1024 + len("...TRUNCATED")


def test_timeout_ends_a_run(toolbox_path, make_request):
    servable = Servable(find_version_folders(toolbox_path)[-1])
    request = make_request("spin", {"steps": np.int32(2**31 - 1)})
    with pytest.raises(StatusError) as caught:
        predict(servable, request, timeout_ms=50)
    servable.close()
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_deadline_of_a_call_frees_its_worker(
    toolbox_path, make_request, expect_error
):
    endless = make_request("spin", {"steps": np.int32(2**31 - 1)})
    with (
        EmbeddedServer(
            toolbox_path, "toolbox", port=0, max_workers=1
        ) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = PredictionServiceStub(channel)
        code, _ = expect_error(stub.Predict, endless, timeout=0.3)
        response = stub.Predict(make_request("", X), timeout=20)
    assert code == "DEADLINE_EXCEEDED"
    assert list(response.outputs["y"].float_val) == [2.5, 3.0]


def test_message_over_4_megabytes_is_accepted(predict_stub, make_request):
    photo = b"p" * (5 * 2**20)
    request = make_request("to_number", {"text": [photo]})
    with pytest.raises(grpc.RpcError) as caught:
        predict_stub.Predict(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
