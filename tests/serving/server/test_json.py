"""Values between JSON and tensors."""

import json
import tracemalloc

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
from bmt_keras.serving.server.run_pool import Limits
from bmt_keras.serving.server.status import StatusError


def _info(dtype):
    return TensorInfo(dtype=tf.as_dtype(dtype).as_datatype_enum)


def _make_array(value, dtype):
    return make_array(json.dumps(value).encode(), _info(dtype), Limits())


def _read(body, *dtypes):
    """Reads a body for a signature of inputs x, y."""
    inputs = dict(zip("xy", map(_info, dtypes), strict=False))
    document = parse_document(body, Limits())
    arrays = read_inputs(document, inputs, Limits())
    return {name: array.tolist() for name, array in arrays.items()}


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
        ([[[1], [2]], [[3], [4]]], "int64"),
        ([[[[]]]], "int32"),
        (list(range(30_000)), "int32"),
        ([[[n, n + 1]] for n in range(9_000)], "float64"),
    ],
)
def test_numbers_keep_their_value(value, dtype):
    array = _make_array(value, dtype)
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
    assert _make_array([value], dtype).tolist() == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ä", "ä".encode()),
        ('[1, 2], {"a": 1e400}', b'[1, 2], {"a": 1e400}'),
        ("\\ \t/", b"\\ \t/"),
        ({"b64": "/w=="}, b"\xff"),
        ({"b64": "/w"}, b"\xff"),
        ({"b64": " Y Q\n=\t="}, b"a"),
        ({"b64": ""}, b""),
    ],
)
def test_strings_become_bytes(value, expected):
    assert _make_array([value], "string").tolist() == [expected]


@pytest.mark.parametrize(
    "text", ["?", "_w==", "YQ===", "YWI==", "Y", "Y=Q=", "ä"]
)
def test_bad_base64_is_refused(text):
    with pytest.raises(ValueError, match="Unable to base64 decode"):
        _make_array([{"b64": text}], "string")


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
        ("\ud800", "string", "surrogates not allowed"),
        ({"a": [1]}, "float32", '{"a": [1]} is not of expected type: float'),
        ([[[]], [[[]]]], "float32", "Encountered list at unexpected"),
        ({"b65": "YQ=="}, "string", "is not of expected type: string"),
        ({"b64": "_w=="}, "string", 'base64 decode {"b64": "_w=="}'),
        (1, "complex64", "is not of expected type: complex64"),
        ([1, [2]], "int32", "Encountered list at unexpected"),
        ([[1], 2], "int32", "Encountered list at unexpected"),
        ([[["a"]], [["b"], ["c"]]], "string", "Encountered list at unexpected"),
    ],
)
def test_value_that_does_not_fit_is_refused(value, dtype, part):
    with pytest.raises(StatusError) as caught:
        body = json.dumps({"inputs": {"x": value}}).encode()
        _read(body, dtype)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.message.startswith("Input x: ")
    assert part in caught.value.message


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b" ", "Invalid value. at offset: 0"),
        (b'{"inputs": 1e400}', "Number too big to be stored in double"),
        (b'{"inputs": [-1.5E+999]}', "Number too big to be stored in double"),
        (b'{"inputs": [[' + b"9" * 400 + b".5]]}", "Number too big"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "Number too big"),
        (b"[1] ", "JSON Value: [1] Is not object"),
        (b'{"inputs": [1, }', "Invalid value. at offset: 16"),
        (b'{"inputs": [1', "Invalid value. at offset: 13"),
        (b'{"inputs": 1,}', "Invalid value. at offset: 13"),
        (b'{"inputs": 1]', "Invalid value. at offset: 12"),
        (b'{"inputs" 1}', "Invalid value. at offset: 1"),
        (b'{"inputs": [tru]}', "Invalid value."),
        (b'{"inputs": "a', "Invalid value."),
        (b'{"inputs": ' + b"[" * 10**5, "Invalid value."),
    ],
)
def test_broken_document_is_refused(body, part):
    with pytest.raises(StatusError) as caught:
        parse_document(body, Limits())
    assert part in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("depth", [9, 63, 100, 10_000])
def test_depth_of_a_document_is_no_danger(depth):
    deep = b"[" * depth + b"1, [2]" + b"]" * depth
    objects = b'{"a":' * (depth // 9) + b"1" + b"}" * (depth // 9)
    rest = b'"more": %b, "else": %b}' % (deep, objects)
    body = b'{"inputs": [1], ' + rest
    assert _read(body, "float32") == {"x": [1]}
    for key in (b"inputs", b"instances"):
        for value in (deep, objects):
            with pytest.raises(StatusError) as caught:
                _read(b'{"%b": %b}' % (key, value), "float32")
            assert caught.value.code.name == "INVALID_ARGUMENT"
            assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"inputs": {"x": [1], "y": ["a"]}}', {"x": [1], "y": [b"a"]}),
        (b'{"inputs": {"x": 1, "y": "\xff", "z": 0}}', {"x": 1, "y": b"\xff"}),
        (b'{"instances": [{"x": 1, "y": "]"}]}', {"x": [1], "y": [b"]"]}),
        (
            b'{"instances": [{"y": {"b64": "YQ"}, "\\u0078": [1]}, '
            b' { "x" : [ 2 ] , "y" : "" } ] , "signature_name": ""}',
            {"x": [[1], [2]], "y": [b"a", b""]},
        ),
    ],
)
def test_several_inputs_are_named(body, expected):
    assert _read(body, "float32", "string") == expected


@pytest.mark.parametrize(
    ("begin", "join", "end"),
    [
        ('{"inputs": [', ", ", "]}"),
        ('{"instances": [[', "], [", "]]}"),
        ('{"instances": [{"x": [', ']}, {"x": [', "]}]}"),
        ('{"inputs": [1], "more": [[', "],[", "]]}"),
    ],
    ids=["list", "rows", "named rows", "ignored"],
)
def test_numbers_take_little_more_memory_than_their_text(begin, join, end):
    body = (begin + join.join(["1.5"] * 50_000) + end).encode()
    inputs = {"x": _info("float32")}
    tracemalloc.start()
    try:
        arrays = read_inputs(parse_document(body, Limits()), inputs, Limits())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert arrays["x"].size in (1, 50_000)
    # With Python's own parser, 9 to 25 times the text.
    assert peak < 4 * len(body) + 2**20


def test_parsing_ends_with_its_call():
    body, late = b'{"inputs": [1, 2]}', Limits(deadline=0.0)
    with pytest.raises(TimeoutError):
        parse_document(body, late)
    document = parse_document(body, Limits())
    with pytest.raises(TimeoutError):
        read_inputs(document, {"x": _info("float32")}, late)


@pytest.mark.parametrize("text", ["1e30", "0.5E-400", "NaN", "-Infinity"])
def test_numbers_of_any_notation_are_read(text):
    body = f'\n{{"inputs": [{text}]}} and more'.encode()
    (x,) = _read(body, "float64")["x"]
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
