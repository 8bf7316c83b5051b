"""REST's documents: JSON to the inputs of a signature, outputs to JSON."""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from .status import StatusError, invalid

Document = dict[str, Any]
Inputs = Mapping[str, TensorInfo]

_QUOTED_CHARACTERS = 256
# What may be too large for a double.
_LARGE_EXPONENT = re.compile(r"[eE]\+?[0-9]{3}")
# Outputs of this ending hold bytes, which JSON carries in base64.
_BYTES_SUFFIX = "_bytes"
# dtype -> the types of its values in JSON
_VALUE_TYPES: dict[str, set[type]] = {
    **{name: {int, float} for name in ("float32", "float64")},
    **{f"int{bits}": {int} for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": {int} for bits in (8, 32, 64)},
    "bool": {bool},
    "string": {str, dict},
}
# Small integers travel in 32 bits, of which the upper ones are then lost.
_WIRE_DTYPES = dict.fromkeys(("int8", "int16", "uint8"), "int32")
# The words of messages, where they are not Python's.
_NAMES_OF_DTYPES = {"float32": "float", "float64": "double"}
_NAMES_OF_TYPES = {
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
    type(None): "Null",
}


# === Requests ===


def parse_document(body: bytes | bytearray) -> Document:
    """Parses the body of a `:predict` request; what follows it is ignored."""
    try:
        text = body.decode().lstrip(" \t\n\r")
        if not text:
            raise invalid("JSON Parse error: The document is empty")
        # Python's own conversion is several times as fast, but gives infinity.
        parse_float = _parse_float if _LARGE_EXPONENT.search(text) else None
        decoder = json.JSONDecoder(parse_float=parse_float)
        document = decoder.raw_decode(text)[0]
        if not isinstance(document, dict):
            raise invalid(f"JSON Value: {_quote(document)} Is not object")
        if not isinstance(document.get("signature_name", ""), str):
            raise invalid(
                f"JSON Value: {_quote(document)} not formatted correctly. "
                "'signature_name' key must be a string value."
            )
    except json.JSONDecodeError as error:
        reason = error.msg.replace("Expecting value", "Invalid value.")
        raise invalid(
            f"JSON Parse error: {reason} at offset: {error.pos}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    return document


def read_inputs(document: Document, inputs: Inputs) -> dict[str, np.ndarray]:
    """Reads a signature's inputs from `instances` (rows) or `inputs`."""
    if not inputs:
        name = document.get("signature_name") or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {name}")
    try:
        if "instances" in document and "inputs" in document:
            raise invalid(
                f"JSON Value: {_quote(document)} Not formatted correctly "
                "expecting only one of 'inputs' or 'instances' keys to exist "
            )
        if "instances" in document:
            return _read_rows(document, inputs)
        if "inputs" in document:
            return _read_columns(document["inputs"], inputs)
    except RecursionError as error:
        # Quoting a value takes a level of calls for each of its levels.
        raise invalid(f"JSON Parse error: {error}") from error
    raise invalid("Missing 'inputs' or 'instances' key")


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"Number too big to be stored in double: {text}")
    return value


def _quote(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:_QUOTED_CHARACTERS]


def _read_columns(value: Any, inputs: Inputs) -> dict[str, np.ndarray]:
    if not _is_named(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as "
                "multiple input tensors required as per tensorinfo_map"
            )
        value = dict.fromkeys(inputs, value)
    for name in inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: make_array(value[name], inputs[name]) for name in inputs}


def _read_rows(document: Document, inputs: Inputs) -> dict[str, np.ndarray]:
    rows = document["instances"]
    if not isinstance(rows, list):
        raise invalid(
            f"JSON Value: {_quote(document)} Excepting 'instances' to be an "
            "list/array"
        )
    if not rows:
        raise invalid(
            f"JSON Value: {_quote(document)} No values in 'instances' array"
        )
    if len(inputs) > 1 and not isinstance(rows[0], dict):
        raise invalid(
            "instances is a plain list, but expecting list of objects as "
            "multiple input tensors required as per tensorinfo_map"
        )
    named = _is_named(rows[0])
    wanted, other = ("object", "list") if named else ("value/list", "object")
    for number, row in enumerate(rows):
        if named != _is_named(row):
            raise invalid(
                f"Expecting {wanted} but got {other} at item {number} of input "
                "list"
            )
        if named and row.keys() != inputs.keys():
            raise _explain_names(number, row, inputs)
    if not named:
        return {name: _join(rows, info) for name, info in inputs.items()}
    return {
        name: _join([row[name] for row in rows], info, f" key: {name}")
        for name, info in inputs.items()
    }


def _explain_names(number: int, row: Document, inputs: Inputs) -> StatusError:
    for name in row:
        if name not in inputs:
            reason = f"JSON object: does not have named input: {name}"
            return _explain_element(number, f" key: {name}", reason)
    return invalid(
        f"Failed to process element: {number} of 'instances' list. JSON "
        f"object: {_quote(row)} keys must be equal to: "
        f"{','.join(sorted(inputs))}"
    )


def _explain_element(number: int, key: str, reason: str) -> StatusError:
    return invalid(
        f"Failed to process element: {number}{key} of 'instances' list. "
        f"Error: INVALID_ARGUMENT: {reason}"
    )


def _join(values: list[Any], info: TensorInfo, key: str = "") -> np.ndarray:
    """Reads an input's values of all rows, at once."""
    try:
        return make_array(values, info)
    except StatusError:
        # One by one, for the words about the first that is wrong.
        first = None
        for number, value in enumerate(values):
            try:
                array = make_array(value, info)
                first = array if first is None else first
                _check_same_shape(first, array)
            except StatusError as error:
                raise _explain_element(number, key, error.message) from error
        raise


def _check_same_shape(expected: np.ndarray, found: np.ndarray) -> None:
    if expected.size != found.size:
        raise invalid(
            f"Expecting tensor size: {expected.size} but got: {found.size}"
        )
    if expected.shape != found.shape:
        first, second = (
            f"[{','.join(map(str, each.shape))}]" for each in (expected, found)
        )
        raise invalid(f"Expecting shape {first} but got: {second}")


# === Values ===


def make_array(value: Any, info: TensorInfo) -> np.ndarray:
    """Reads a tensor of an input's dtype from a value or lists of them.

    Numbers are rounded to a float dtype, or become infinite.
    """
    dims, values = _flatten(value)
    dtype = tf.as_dtype(info.dtype).name
    if dtype not in _VALUE_TYPES and values:
        raise invalid(
            f"Conversion of JSON Value: {_quote(values[0])} to type: {dtype}"
        )
    if unexpected := set(map(type, values)) - _VALUE_TYPES.get(dtype, set()):
        first = next(each for each in values if type(each) in unexpected)
        raise _explain_type(first, dtype)
    if dtype == "string":
        array = np.empty(len(values), dtype=object)
        array[:] = [_to_bytes(each) for each in values]
        return array.reshape(dims)
    wire_dtype = _WIRE_DTYPES.get(dtype, dtype)
    try:
        # Too large for the dtype becomes infinite, without a warning.
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=wire_dtype)
    except OverflowError as error:
        if dtype in _NAMES_OF_DTYPES:
            raise invalid(
                "JSON Parse error: Number too big to be stored in double."
            ) from error
        limits = np.iinfo(wire_dtype)
        first = next(v for v in values if not limits.min <= v <= limits.max)
        raise _explain_type(first, dtype) from error
    return array.astype(dtype, copy=False).reshape(dims)


def _flatten(value: Any) -> tuple[list[int], list[Any]]:
    """Returns the dimensions and the values in one list."""
    # Each level is joined and checked as a whole by functions in C, not number
    # by number.
    dims: list[int] = []
    level = [value]
    while list in (types := set(map(type, level))):
        if len(types) > 1:
            raise _explain_mixed(level, len(dims))
        sizes = set(map(len, level))
        if len(sizes) > 1:
            expected = len(level[0])
            found = next(len(each) for each in level if len(each) != expected)
            raise invalid(
                f"Encountered list at unexpected size: {found} at level: "
                f"{len(dims)} expected size: {expected}"
            )
        dims += sizes
        level = list(chain.from_iterable(level))
    return dims, level


def _explain_mixed(level: list[Any], depth: int) -> StatusError:
    if not isinstance(level[0], list):
        return invalid(
            f"Encountered list at unexpected level: {depth} expected < {depth}"
        )
    value = next(each for each in level if not isinstance(each, list))
    expected = depth
    first: Any = level[0]
    while isinstance(first, list):
        expected, first = expected + 1, first[0] if first else ()
    return invalid(
        f"JSON Value: {_quote(value)} found at incorrect level: {depth + 1} in "
        f"the JSON DOM. Expected at level: {expected}"
    )


def _explain_type(value: Any, dtype: str) -> StatusError:
    # A boolean is its own type: "True".
    kind = _NAMES_OF_TYPES.get(type(value), str(value))
    return invalid(
        f"JSON Value: {_quote(value)} Type: {kind} is not of expected type: "
        f"{_NAMES_OF_DTYPES.get(dtype, dtype)}"
    )


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: dict[str, Any]) -> bool:
    return set(value) == {"b64"} and isinstance(value["b64"], str)


def _to_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        # JSON can hold halves of surrogate pairs, which are no UTF-8.
        return value.encode(errors="replace")
    if not _is_base64(value):
        raise invalid(
            f"JSON Value: {_quote(value)} not formatted correctly for base64 "
            "data"
        )
    try:
        # As Abseil decodes: white space is skipped, the padding may be
        # missing, the URL-safe alphabet is refused.
        text = b"".join(value["b64"].encode("ascii").split())
        if not text.endswith(b"="):
            text += b"=" * (-len(text) % 4)
        if len(text) % 4:
            raise binascii.Error("wrong padding")
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise invalid("Unable to base64 decode") from error


# === Answers ===


def write_outputs(
    outputs: Mapping[str, np.ndarray], *, in_rows: bool
) -> dict[str, Any]:
    """Writes outputs as rows (`predictions`) or columns (`outputs`).

    A single output is written without its name.
    """
    if in_rows:
        _check_rows(outputs)
    columns = {name: _to_lists(name, outputs[name]) for name in sorted(outputs)}
    if len(columns) == 1:
        (only,) = columns.values()
        return {"predictions" if in_rows else "outputs": only}
    if not in_rows:
        return {"outputs": columns}
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(columns, r, strict=True)) for r in rows]}


def to_json(document: Mapping[str, Any]) -> bytes:
    """Returns a document as it is sent; strings that are no UTF-8 included."""
    text = json.dumps(document, ensure_ascii=False)
    return text.encode(errors="surrogateescape")


def _check_rows(outputs: Mapping[str, np.ndarray]) -> None:
    batch = None
    for name, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if batch is not None and len(array) != batch:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: "
                f"{len(array)} expecting: {batch}"
            )
        batch = len(array)


def _to_lists(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        return _write_strings(array.tolist(), name.endswith(_BYTES_SUFFIX))
    dtype = tf.as_dtype(array.dtype)
    if dtype.is_complex or dtype.is_quantized:
        raise invalid(
            f"Failed to write JSON value for tensor type: {dtype.name}"
        )
    if array.dtype == np.float32:
        # The shortest digits that give the same float32: 0.2, not
        # 0.20000000298.
        array = array.astype(str).astype(np.float64)
    elif dtype.is_floating:
        array = array.astype(np.float64)
    return array.tolist()


def _write_strings(value: Any, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_write_strings(each, as_bytes) for each in value]
    if as_bytes:
        return {"b64": base64.b64encode(value).decode()}
    return value.decode(errors="surrogateescape")
