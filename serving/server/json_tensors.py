"""A tensor in JSON, as REST requests carry it."""

import base64
import binascii
import json
import math
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from .examples import invalid

_INT_FIELDS = {
    "int8": ("int_val", 32, True),
    "int16": ("int_val", 32, True),
    "int32": ("int_val", 32, True),
    "uint8": ("int_val", 32, True),
    "int64": ("int64_val", 64, True),
    "uint32": ("uint32_val", 32, False),
    "uint64": ("uint64_val", 64, False),
}
_FLOAT_FIELDS = {"float32": "float_val", "float64": "double_val"}
_JSON_TYPES = {
    dict: "Object",
    list: "Array",
    str: "String",
    bool: "True",
    int: "Number",
    float: "Number",
    type(None): "Null",
}


def make_tensor(value: Any, info: TensorInfo) -> TensorProto:
    """Reads a tensor from JSON.

    Args:
        value: a JSON value; lists, one in another for each dimension. Bytes
            are objects: {"b64": "..."}.
        info: TensorInfo of the input, which gives the dtype.

    Returns:
        TensorProto with its values in the `*_val` field.

    Raises:
        StatusError: If lists differ in length or a value is of another type.
    """
    tensor = TensorProto(dtype=info.dtype)
    dims, level = [], value
    while isinstance(level, list):
        dims.append(len(level))
        level = level[0] if level else None
    for size in dims:
        tensor.tensor_shape.dim.add(size=size)
    _fill(tensor, value, 0, dims, tf.as_dtype(info.dtype).name)
    return tensor


def _fill(
    tensor: TensorProto, value: Any, level: int, dims: list[int], dtype: str
) -> None:
    if not isinstance(value, list):
        if level != len(dims):
            raise invalid(
                f"JSON Value: {write_json(value)} found at incorrect level: "
                f"{level + 1} in the JSON DOM. Expected at level: {len(dims)}"
            )
        _add(tensor, value, dtype)
        return
    if level >= len(dims):
        raise invalid(
            f"Encountered list at unexpected level: {level} expected < "
            f"{len(dims)}"
        )
    if len(value) != dims[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: "
            f"{level} expected size: {dims[level]}"
        )
    for each in value:
        _fill(tensor, each, level + 1, dims, dtype)


def _add(tensor: TensorProto, value: Any, dtype: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if dtype in _FLOAT_FIELDS and is_number:
        _check_lossless(value, dtype)
        getattr(tensor, _FLOAT_FIELDS[dtype]).append(value)
    elif dtype in _INT_FIELDS and is_number and _fits(value, dtype):
        getattr(tensor, _INT_FIELDS[dtype][0]).append(value)
    elif dtype == "bool" and isinstance(value, bool):
        tensor.bool_val.append(value)
    elif dtype == "string" and isinstance(value, (str, dict)):
        tensor.string_val.append(_to_bytes(value))
    elif dtype in (*_FLOAT_FIELDS, *_INT_FIELDS, "bool", "string"):
        kind = "False" if value is False else _JSON_TYPES[type(value)]
        expected = {"float32": "float", "float64": "double"}.get(dtype, dtype)
        raise invalid(
            f"JSON Value: {write_json(value)} Type: {kind} is not of expected "
            f"type: {expected}"
        )
    else:
        raise invalid(
            f"Conversion of JSON Value: {write_json(value)} to type: {dtype}"
        )


def _check_lossless(value: float, dtype: str) -> None:
    digits, largest = (
        (24, 3.4028234663852886e38) if dtype == "float32" else (53, None)
    )
    lossy = (
        abs(value) >= 2**digits
        if isinstance(value, int)
        else largest is not None
        and math.isfinite(value)
        and abs(value) > largest
    )
    if lossy:
        target = "float" if dtype == "float32" else "double"
        raise invalid(
            f"Cannot convert JSON value: {write_json(value)} to {target} "
            "without loss of precision."
        )


def _fits(value: float, dtype: str) -> bool:
    _, bits, signed = _INT_FIELDS[dtype]
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    )
    return isinstance(value, int) and low <= value < high


def _to_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        # JSON can hold halves of surrogate pairs, which are no UTF-8.
        return value.encode(errors="replace")
    if not is_base64(value):
        raise invalid(
            f"JSON Value: {write_json(value)} not formatted correctly for "
            "base64 data"
        )
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def is_base64(value: Any) -> bool:
    """Tells whether a JSON value stands for bytes."""
    return (
        isinstance(value, dict)
        and set(value) == {"b64"}
        and isinstance(value["b64"], str)
    )


def write_json(value: Any) -> str:
    """Writes a JSON value into a message."""
    return json.dumps(value, ensure_ascii=False)
