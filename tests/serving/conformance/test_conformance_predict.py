"""Predict, asked from outside: any server of the contract must pass."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.predict_pb2 import PredictRequest

INVALID = "INVALID_ARGUMENT"
X = {"x": np.float32([2.0, 4.0])}
AB = {"a": np.int32([5]), "b": np.int32([3])}


@pytest.fixture
def predict(prediction):
    return prediction.Predict


def test_latest_version_answers_by_default(predict, make_request):
    response = predict(make_request("", X, model="half_plus"))
    y = response.outputs["y"]
    assert (list(y.float_val), y.tensor_content) == ([4.0, 5.0], b"")
    assert [dim.size for dim in y.tensor_shape.dim] == [2]
    assert response.model_spec.name == "half_plus"
    assert response.model_spec.signature_name == "serving_default"
    assert response.model_spec.version.value == 123


@pytest.mark.parametrize(("version", "y"), [(7, 3.0), (123, 4.0)])
def test_asked_version_answers(predict, make_request, version, y):
    request = make_request("", X, model="half_plus_all")
    request.model_spec.version.value = version
    response = predict(request)
    assert response.outputs["y"].float_val[0] == y
    assert response.model_spec.version.value == version


@pytest.mark.parametrize(("label", "version"), [("stable", 7), ("canary", 123)])
def test_label_names_a_version(predict, make_request, label, version):
    request = make_request("", X, model="half_plus_all")
    request.model_spec.version_label = label
    assert predict(request).model_spec.version.value == version


def test_specific_policy_serves_its_version(predict, make_request):
    response = predict(make_request("", X, model="half_plus_old"))
    assert response.model_spec.version.value == 7


def test_state_is_kept_between_calls(predict, make_request):
    request = make_request("", {"by": np.int64(5)}, model="counter")
    before, after = (
        predict(request).outputs["total"].int64_val[0] for _ in range(2)
    )
    assert after - before == 5


def test_table_is_initialised(predict, make_request):
    request = make_request("", {"word": [b"two", b"ten"]}, model="words")
    assert list(predict(request).outputs["number"].int64_val) == [2, -1]


def test_filter_fetches_its_outputs_alone(predict, make_request):
    every = predict(make_request("two_inputs", AB)).outputs
    assert {name: list(t.int_val) for name, t in every.items()} == {
        "sum": [8],
        "difference": [2],
    }
    some = predict(make_request("two_inputs", AB, outputs=["sum"])).outputs
    assert {name: list(t.int_val) for name, t in some.items()} == {"sum": [8]}


def test_strings_are_bytes(predict, make_request):
    request = make_request("shout", {"text": [b"a\0", b"\xff"]})
    loud = predict(request).outputs["loud"]
    assert list(loud.string_val) == [b"a\0!", b"\xff!"]


def test_every_dtype_comes_in_its_value_field(predict, make_request):
    request = make_request("dtypes", {"x": np.float32([0.0, 3.0])})
    outputs = predict(request).outputs
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


def test_calls_at_the_same_time_do_not_mix(predict, make_request):
    def shout(number):
        request = make_request("shout", {"text": [b"%d" % number]})
        return predict(request).outputs["loud"].string_val[0]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(shout, range(64)))
    assert answers == [b"%d!" % number for number in range(64)]


def test_missing_input_takes_its_default(predict, make_request):
    request = make_request("", {"by": np.int64(0)}, model="counter")
    assert list(predict(request).outputs["unit"].string_val) == [b"step"]


def _tensor(shape, **fields):
    proto = TensorProto(dtype=tf.float32.as_datatype_enum, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "y"),
    [
        (_tensor([3], float_val=[2.0, 4.0]), [4.0, 5.0, 5.0]),
        (_tensor([1], float_val=[2.0, 4.0]), [4.0]),
        (_tensor([2]), [3.0, 3.0]),
        (
            _tensor([1], tensor_content=np.float32([2.0]).tobytes()),
            [4.0],
        ),
    ],
    ids=["too few", "too many", "none", "content"],
)
def test_number_of_values_may_differ(predict, make_request, proto, y):
    request = make_request("", {"x": proto}, model="half_plus")
    assert list(predict(request).outputs["y"].float_val) == y


FAILURES = {
    "unknown model": (
        ("m", "", X, ()),
        "NOT_FOUND",
        "Servable not found for request: Latest(m)",
    ),
    "no model name": (
        ("", "", X, ()),
        INVALID,
        "ModelSpec has no name specified.",
    ),
    "unknown signature": (
        ("half_plus", "nope", {}, ("z",)),
        "FAILED_PRECONDITION",
        'Serving signature key "nope" not found.',
    ),
    "no default signature": (
        ("toolbox", "", X, ()),
        "FAILED_PRECONDITION",
        'Serving signature key "serving_default" not found.',
    ),
    "missing input": (
        ("half_plus", "", {}, ()),
        INVALID,
        "input size does not match signature: 0!=1 len({}) != len({x}). "
        "Sent extra: {}. Missing but required: {x}.",
    ),
    "extra input": (
        ("half_plus", "", X | {"b": 1, "a": 1}, ()),
        INVALID,
        "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). "
        "Sent extra: {a,b}. Missing but required: {}.",
    ),
    "wrong name": (
        ("half_plus", "", {"foo": 1.0}, ()),
        INVALID,
        "Signature input alias: x(feed name: x:0) not found in request and no "
        "default value provided. Inputs expected to be in the request {foo}, "
        "or default input alias set: ",
    ),
    "unparsable tensor": (
        ("half_plus", "", {"x": _tensor([2], tensor_content=b"1")}, ("z",)),
        INVALID,
        "tensor parsing error: x",
    ),
    "tensor without a dtype": (
        ("half_plus", "", {"x": TensorProto()}, ()),
        INVALID,
        "tensor parsing error: x",
    ),
    "wrong name beside defaults": (
        ("counter", "", {"z": 1}, ()),
        INVALID,
        "Inputs contains invalid name. Used request inputs: , request input: z",
    ),
    "signature of a strange method": (
        ("counter", "train", {"by": np.int64(1)}, ()),
        "INTERNAL",
        "Expected prediction signature method_name to be one of "
        "{tensorflow/serving/predict, tensorflow/serving/classify, "
        "tensorflow/serving/regress}. Was: elsewhere/train",
    ),
    "unknown output": (
        ("toolbox", "two_inputs", AB, ("sum", "z")),
        INVALID,
        "output tensor alias not found in signature: z Outputs expected to "
        "be in the set {difference,sum}.",
    ),
    "duplicate output": (
        ("toolbox", "two_inputs", AB, ("sum", "sum")),
        INVALID,
        "duplicate output tensor alias: sum",
    ),
    "wrong dtype": (
        ("toolbox", "shout", {"text": np.float32([1.0])}, ()),
        INVALID,
        "Expects arg[0] to be string but float is provided",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_bad_request_gets_its_code_and_message(
    predict, make_request, expect_error, case
):
    (model, signature, inputs, outputs), code, message = FAILURES[case]
    request = make_request(signature, inputs, model=model, outputs=outputs)
    assert expect_error(predict, request) == (code, message)


def test_request_without_model_spec_is_refused(predict, expect_error):
    answer = expect_error(predict, PredictRequest())
    assert answer == (INVALID, "Missing ModelSpec")


def test_version_that_is_not_served_is_not_found(
    predict, make_request, expect_error
):
    request = make_request("", X, model="half_plus")
    request.model_spec.version.value = 7
    assert expect_error(predict, request) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(half_plus, 7)",
    )


def test_unknown_label_is_refused(predict, make_request, expect_error):
    request = make_request("", X, model="half_plus_all")
    request.model_spec.version_label = "beta"
    assert expect_error(predict, request) == (
        INVALID,
        "Unrecognized servable version label: beta",
    )


@pytest.mark.parametrize(
    ("signature", "inputs", "part"),
    [
        (
            "two_inputs",
            {"a": np.int32([1, 2]), "b": np.int32([1, 2, 3])},
            "Incompatible shapes: [2] vs. [3]",
        ),
        (
            "decode",
            {"image_bytes": b"no photo"},
            "Unknown image file format. One of JPEG",
        ),
    ],
)
def test_failing_op_is_an_invalid_argument(
    predict, make_request, expect_error, signature, inputs, part
):
    code, message = expect_error(predict, make_request(signature, inputs))
    assert code == INVALID
    assert part in message


def test_long_message_is_cut(predict, make_request, expect_error):
    request = make_request("to_number", {"text": b"n" * 3000})
    code, message = expect_error(predict, request)
    assert code == INVALID
    assert message.startswith("StringToNumberOp could not correctly convert")
    assert message.endswith("n...TRUNCATED")
    assert len(message) == 1024 + len("...TRUNCATED")


def test_deadline_ends_a_call(predict, make_request, expect_error):
    endless = make_request("spin", {"steps": np.int32(2**31 - 1)})
    code, _ = expect_error(predict, endless, timeout=0.3)
    assert code == "DEADLINE_EXCEEDED"


def test_request_over_4_megabytes_is_read(predict, make_request, expect_error):
    request = make_request("to_number", {"text": b"n" * (5 * 2**20)})
    code, _ = expect_error(predict, request)
    assert code == INVALID
