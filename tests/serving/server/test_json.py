"""Values between JSON and tensors."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from bmt_keras.serving.server.json_documents import (
    make_array,
    parse_document,
    read_inputs,
    to_json,
    write_outputs,
)
from bmt_keras.serving.server.status import StatusError, to_status


def _info(dtype):
    return TensorInfo(dtype=tf.as_dtype(dtype).as_datatype_enum)


# === Requests ===


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([[1, 2], [3, 4]], "int32"),
        ([2**62], "int64"),
        ([2**63], "uint64"),
        ([2**31], "uint32"),
        ([-3, 3], "int8"),
        ([1, 0.5], "float32"),
        (1.5, "float64"),
        ([True, False], "bool"),
        ([], "float32"),
        ([[], []], "float32"),
    ],
)
def test_numbers_keep_their_value(value, dtype):
    array = make_array(value, _info(dtype))
    assert array.dtype.name == dtype
    assert array.tolist() == value


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (2**24 + 1, "float32", 2.0**24),
        (1e39, "float32", np.inf),
        (-(10**39), "float32", -np.inf),
        (2**53 + 1, "float64", 2.0**53),
    ],
)
def test_numbers_are_fitted_to_the_dtype(value, dtype, expected):
    assert make_array([value], _info(dtype)).tolist() == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ä", "ä".encode()),
        ("\ud800", b"?"),
        ({"b64": "/w=="}, b"\xff"),
        ({"b64": "/w"}, b"\xff"),
        ({"b64": " Y Q\n=\t="}, b"a"),
        ({"b64": ""}, b""),
    ],
)
def test_strings_become_bytes(value, expected):
    assert make_array([value], _info("string")).tolist() == [expected]


@pytest.mark.parametrize(
    "text", ["?", "_w==", "YQ===", "YWI==", "Y", "Y=Q=", "ä", 1]
)
def test_bad_base64_is_refused(text):
    with pytest.raises(ValueError, match="Unable to base64 decode"):
        make_array([{"b64": text}], _info("string"))


@pytest.mark.parametrize(
    ("value", "dtype", "part"),
    [
        (1.5, "int32", "1.5 is not of expected type: int32"),
        ([2**31], "int32", "out of bounds for int32"),
        ([300], "int8", "out of bounds for int8"),
        ([2**63], "int64", "too large"),
        ([-1], "uint32", "out of bounds for uint32"),
        ("1", "float32", '"1" is not of expected type: float'),
        ([0.5, True], "float32", "[0.5, true] is not of expected type: float"),
        (None, "float64", "null is not of expected type: double"),
        (False, "int64", "false is not of expected type: int64"),
        (1, "bool", "is not of expected type: bool"),
        (1, "string", "is not of expected type: string"),
        ([10**400], "float32", "too large"),
        ({"b65": "YQ=="}, "string", "base64"),
        (1, "complex64", "is not of expected type: complex64"),
        ([1, [2]], "int32", "Encountered list at unexpected"),
        ([[1], 2], "int32", "Encountered list at unexpected"),
        ([[["a"]], [["b"], ["c"]]], "string", "Encountered list at unexpected"),
    ],
)
def test_value_that_does_not_fit_is_refused(value, dtype, part):
    with pytest.raises(StatusError) as caught:
        read_inputs({"inputs": {"the_name": value}}, {"the_name": _info(dtype)})
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.message.startswith("Input the_name: ")
    assert part in caught.value.message


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b" ", "Expecting value"),
        (b'{"inputs": 1e400}', "Number too big to be stored in double"),
        (b'{"inputs": -1.5E+999}', "Number too big to be stored in double"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "JSON Parse error: "),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b'{"inputs": [1, }', "Expecting value: line 1 column 16"),
        (b'{"inputs": "\xff"}', "can't decode byte 0xff"),
        (b'{"inputs": ' + b"[" * 10**6, "recursion"),
    ],
)
def test_broken_document_is_refused(body, part):
    with pytest.raises(StatusError) as caught:
        parse_document(body)
    assert part in caught.value.message


@pytest.mark.parametrize("key", ["inputs", "instances"])
@pytest.mark.parametrize("depth", [100, 500, 800, 900, 950])
def test_depth_of_a_document_is_no_danger(key, depth):
    body = f'{{"{key}": {"[" * depth}1, [2]{"]" * depth}}}'.encode()
    with pytest.raises((StatusError, RecursionError)) as caught:
        read_inputs(parse_document(body), {"x": _info("float32")})
    status = to_status(caught.value)
    assert status.code.name == "INVALID_ARGUMENT"
    assert len(status.message) < 1000


@pytest.mark.parametrize("text", ["1e30", "0.5E-400", "NaN", "-Infinity"])
def test_numbers_of_any_notation_are_read(text):
    document = parse_document(f'\n{{"inputs": [{text}]}} and more'.encode())
    (x,) = read_inputs(document, {"x": _info("float64")})["x"]
    np.testing.assert_equal(x, float(text))


# === Answers ===


def _write(array, *, in_rows=False):
    return to_json(write_outputs({"y": np.asarray(array)}, in_rows=in_rows))


@pytest.mark.parametrize(
    ("array", "text"),
    [
        # The digits of float32 itself.
        (np.float32([0.1, 9e6, 3e-5]), b"[0.1, 9000000.0, 3e-05]"),
        (np.float32([np.nan, np.inf, -np.inf]), b"[NaN, Infinity, -Infinity]"),
        (np.float16([0.5]), b"[0.5]"),
        (np.int64(3), b"3"),
        (np.array([b"a\xff"], dtype=object), b'["a\xff"]'),
    ],
)
def test_outputs_are_written(array, text):
    assert _write(array) == b'{"outputs": ' + text + b"}"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float32(1.0), "y has no shape information"),
        (np.complex64([1j]), "tensor type: complex64"),
    ],
)
def test_outputs_that_json_lacks_are_refused(array, message):
    with pytest.raises(StatusError, match=message):
        _write(array, in_rows=True)
