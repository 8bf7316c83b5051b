"""Values between JSON and tensors."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from bmt_keras.serving.server.json_answers import to_json, write_outputs
from bmt_keras.serving.server.json_tensors import make_tensor
from bmt_keras.serving.server.status import StatusError
from bmt_keras.serving.server.tensors import make_tensor_proto, parse_tensor


def _read(value, dtype):
    enum = tf.as_dtype(dtype).as_datatype_enum
    return parse_tensor(make_tensor(value, TensorInfo(dtype=enum)))


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
    ],
)
def test_numbers_keep_their_value(value, dtype):
    array = _read(value, dtype)
    assert array.dtype.name == dtype
    assert array.tolist() == value


def test_strings_and_bytes_become_bytes():
    array = _read(["a", {"b64": "/w=="}], "string")
    assert array.tolist() == [b"a", b"\xff"]


@pytest.mark.parametrize(
    ("value", "dtype", "part"),
    [
        (1.5, "int32", "1.5 Type: Number is not of expected type: int32"),
        (2**31, "int32", "is not of expected type: int32"),
        (-1, "uint32", "is not of expected type: uint32"),
        ("1", "float32", "Type: String is not of expected type: float"),
        (None, "float64", "Type: Null is not of expected type: double"),
        (False, "int64", "Type: False is not of expected type: int64"),
        (1, "bool", "is not of expected type: bool"),
        (1, "string", "is not of expected type: string"),
        (2**24, "float32", "to float without loss of precision."),
        (1e39, "float32", "to float without loss of precision."),
        (2**53, "float64", "to double without loss of precision."),
        ({"b64": "?"}, "string", "Unable to base64 decode"),
        ({"b65": "YQ=="}, "string", "not formatted correctly for base64 data"),
        (1, "complex64", "Conversion of JSON Value: 1 to type: complex64"),
        ([1, [2]], "int32", "Encountered list at unexpected level: 1"),
        ([[1], 2], "int32", "2 found at incorrect level: 2"),
    ],
)
def test_value_that_does_not_fit_is_told(value, dtype, part):
    with pytest.raises(StatusError) as caught:
        _read(value, dtype)
    assert part in caught.value.message


def _write(array, name="y", *, in_rows=False):
    outputs = {name: make_tensor_proto(np.asarray(array))}
    return json.loads(to_json(write_outputs(outputs, in_rows=in_rows)))


def test_float32_is_written_with_its_own_digits():
    text = to_json(
        write_outputs(
            {"y": make_tensor_proto(np.float32([0.1, 9e6, 3e-5]))},
            in_rows=False,
        )
    )
    assert json.loads(text) == {"outputs": [0.1, 9000000.0, 0.00003]}
    assert b"9000000.0" in text


def test_numbers_that_json_lacks_are_written_as_words():
    text = to_json(
        write_outputs(
            {"y": make_tensor_proto(np.float32([np.nan, np.inf, -np.inf]))},
            in_rows=True,
        )
    )
    assert [word in text for word in (b"NaN", b"Infinity", b"-Infinity")] == [
        True
    ] * 3


def test_half_precision_and_scalars_are_written():
    assert _write(np.float16([0.5])) == {"outputs": [0.5]}
    assert _write(np.int64(3)) == {"outputs": 3}


def test_strings_that_are_no_utf8_keep_their_bytes():
    array = np.array([b"a\xff"], dtype=object)
    outputs = {"y": make_tensor_proto(array)}
    assert b'"a\xff"' in to_json(write_outputs(outputs, in_rows=False))


def test_scalar_has_no_rows():
    with pytest.raises(StatusError, match="y has no shape information"):
        _write(np.float32(1.0), in_rows=True)


def test_complex_number_cannot_be_written():
    with pytest.raises(StatusError, match="tensor type: complex64"):
        _write(np.complex64([1j]))
