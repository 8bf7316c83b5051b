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


@pytest.mark.parametrize(
    ("model", "spec", "version", "y"),
    [
        ("half_plus_all", {"version": 7}, 7, 3.0),
        ("half_plus_all", {"version": 123}, 123, 4.0),
        ("half_plus_all", {"label": "stable"}, 7, 3.0),
        ("half_plus_all", {"label": "canary"}, 123, 4.0),
        ("half_plus_old", {}, 7, 3.0),
    ],
)
def test_asked_version_answers(predict, make_request, model, spec, version, y):
    response = predict(make_request("", X, model=model, **spec))
    assert response.outputs["y"].float_val[0] == y
    assert response.model_spec.version.value == version


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
    expected = {
        "float16": ("half_val", [0, 0x4200]),
        "bfloat16": ("half_val", [0, 0x4040]),
        "float64": ("double_val", [0.0, 3.0]),
        "bool": ("bool_val", [False, True]),
        "int64": ("int64_val", [0, 3]),
        "uint32": ("uint32_val", [0, 3]),
        "uint64": ("uint64_val", [0, 3]),
        "complex64": ("scomplex_val", [0.0, 0.0, 3.0, 0.0]),
        "string": ("string_val", [b"a\0"]),
    }
    for name in ("int8", "int16", "uint8", "uint16"):
        expected[name] = ("int_val", [0, 3])
    for name, (field, values) in expected.items():
        assert list(getattr(outputs[name], field)) == values
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


def test_signature_of_any_method_is_run(predict, make_request):
    inputs = {"by": np.int64(1)}
    response = predict(make_request("train", inputs, model="counter"))
    assert len(response.outputs["total"].int64_val) == 1


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
        (_tensor([1], tensor_content=np.float32([2.0]).tobytes()), [4.0]),
    ],
    ids=["too few", "too many", "none", "content"],
)
def test_number_of_values_may_differ(predict, make_request, proto, y):
    request = make_request("", {"x": proto}, model="half_plus")
    assert list(predict(request).outputs["y"].float_val) == y


def _half(**changes):
    return {"inputs": X, "model": "half_plus", **changes}


def _two(*outputs):
    return {"signature": "two_inputs", "inputs": AB, "outputs": outputs}


# code -> message -> request
FAILURES = {
    "NOT_FOUND": {
        "Servable not found for request: Latest(m)": {"model": "m"},
        "Servable not found for request: Specific(half_plus, 7)": _half(
            version=7
        ),
    },
    "FAILED_PRECONDITION": {
        # The signature is checked before inputs and outputs.
        'Serving signature key "nope" not found.': _half(
            signature="nope", inputs={}, outputs=("z",)
        ),
        'Serving signature key "serving_default" not found.': {"inputs": X},
    },
    INVALID: {
        "ModelSpec has no name specified.": {"model": ""},
        "Unrecognized servable version label: beta": _half(label="beta"),
        "input size does not match signature: 0!=1 len({}) != len({x}). "
        "Sent extra: {}. Missing but required: {x}.": _half(inputs={}),
        "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). "
        "Sent extra: {a,b}. Missing but required: {}.": _half(
            inputs=X | {"b": 1, "a": 1}
        ),
        "Signature input alias: x(feed name: x:0) not found in request and no "
        "default value provided. Inputs expected to be in the request {foo}, "
        "or default input alias set: ": _half(inputs={"foo": 1.0}),
        "tensor parsing error: x": _half(
            inputs={"x": _tensor([2], tensor_content=b"1")}, outputs=("z",)
        ),
        "output tensor alias not found in signature: z Outputs expected to be "
        "in the set {difference,sum}.": _two("sum", "z"),
        "duplicate output tensor alias: sum": _two("sum", "sum"),
        "Expects arg[0] to be string but float is provided": {
            "signature": "shout",
            "inputs": {"text": np.float32([1.0])},
        },
    },
}


@pytest.mark.parametrize(
    ("code", "message"),
    [(code, message) for code in FAILURES for message in FAILURES[code]],
)
def test_bad_request_gets_its_code_and_message(
    predict, make_request, expect_error, code, message
):
    request = make_request(**FAILURES[code][message])
    assert expect_error(predict, request) == (code, message)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (PredictRequest(), "Missing ModelSpec"),
        (
            PredictRequest(
                model_spec={"name": "half_plus"}, inputs={"x": TensorProto()}
            ),
            "tensor parsing error: x",
        ),
    ],
)
def test_request_with_a_part_missing_is_refused(
    predict, expect_error, request_, message
):
    assert expect_error(predict, request_) == (INVALID, message)


def test_unknown_input_is_refused_beside_defaults(
    predict, make_request, expect_error
):
    request = make_request("", {"z": 1}, model="counter")
    code, message = expect_error(predict, request)
    assert code == INVALID
    assert "z" in message


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


def test_deadline_ends_a_call(predict, make_request, expect_error):
    endless = make_request("spin", {"steps": np.int32(2**31 - 1)})
    code, _ = expect_error(predict, endless, timeout=0.3)
    assert code == "DEADLINE_EXCEEDED"


def test_request_over_4_megabytes_is_read_and_a_long_message_cut(
    predict, make_request, expect_error
):
    request = make_request("to_number", {"text": b"n" * (5 * 2**20)})
    code, message = expect_error(predict, request)
    assert code == INVALID
    assert message.startswith("StringToNumberOp could not correctly convert")
    assert message.endswith("n...TRUNCATED")
    assert len(message) == 1024 + len("...TRUNCATED")
