"""Tensors in JSON, as REST carries them."""

import base64
import binascii
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from .status import invalid

_QUOTED_CHARACTERS = 256
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
_NAMES_OF_DTYPES = {"float32": "float", "float64": "double"}
_NAMES_OF_TYPES = {
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
    type(None): "Null",
}


def make_array(value: Any, info: TensorInfo) -> np.ndarray:
    """Reads a tensor from JSON.

    Args:
        value: A JSON value; lists, one in another for each dimension. Bytes
            are objects: {"b64": "..."}.
        info: The input, which gives the dtype.

    Returns:
        An array; strings are bytes objects in dtype object. Numbers are
        rounded to a float dtype, or become infinite.

    Raises:
        StatusError: If lists differ in length or a value is of another type.
    """
    dims, values = _flatten(value)
    dtype = tf.as_dtype(info.dtype).name
    _check_types(values, dtype)
    if dtype == "string":
        array = np.empty(len(values), dtype=object)
        array[:] = [_to_bytes(each) for each in values]
        return array.reshape(dims)
    try:
        # Too large for the dtype becomes infinite, without a warning.
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=_WIRE_DTYPES.get(dtype, dtype))
    except OverflowError as error:
        raise _explain_overflow(values, dtype) from error
    return array.astype(dtype, copy=False).reshape(dims)


def is_base64(value: Any) -> bool:
    """Whether a JSON value stands for bytes."""
    return (
        isinstance(value, dict)
        and set(value) == {"b64"}
        and isinstance(value["b64"], str)
    )


def quote(value: Any) -> str:
    """Quotes a JSON value in a message, its beginning if it is long."""
    return json.dumps(value, ensure_ascii=False)[:_QUOTED_CHARACTERS]


# === Lists ===


def _flatten(value: Any) -> tuple[list[int], list[Any]]:
    """Returns the dimensions and the values in one list.

    Each level is joined and checked as a whole by functions in C, not number
    by number.
    """
    dims: list[int] = []
    level = [value]
    while list in (types := set(map(type, level))):
        if len(types) > 1:
            raise _explain_mixed(level, len(dims))
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise _explain_sizes(level, len(dims))
        dims += sizes
        level = list(chain.from_iterable(level))
    return dims, level


def _explain_mixed(level: list[Any], depth: int) -> Exception:
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
        f"JSON Value: {quote(value)} found at incorrect level: {depth + 1} in "
        f"the JSON DOM. Expected at level: {expected}"
    )


def _explain_sizes(level: list[list[Any]], depth: int) -> Exception:
    expected = len(level[0])
    found = next(len(each) for each in level if len(each) != expected)
    return invalid(
        f"Encountered list at unexpected size: {found} at level: {depth} "
        f"expected size: {expected}"
    )


# === Values ===


def _check_types(values: list[Any], dtype: str) -> None:
    types = set(map(type, values))
    if dtype not in _VALUE_TYPES and values:
        raise invalid(
            f"Conversion of JSON Value: {quote(values[0])} to type: {dtype}"
        )
    if unexpected := types - _VALUE_TYPES.get(dtype, set()):
        value = next(each for each in values if type(each) in unexpected)
        raise _explain_type(value, dtype)


def _explain_type(value: Any, dtype: str) -> Exception:
    kind = _NAMES_OF_TYPES.get(type(value), str(value))
    return invalid(
        f"JSON Value: {quote(value)} Type: {kind} is not of expected type: "
        f"{_NAMES_OF_DTYPES.get(dtype, dtype)}"
    )


def _explain_overflow(values: list[Any], dtype: str) -> Exception:
    if dtype in _NAMES_OF_DTYPES:
        return invalid(
            "JSON Parse error: Number too big to be stored in double."
        )
    limits = np.iinfo(_WIRE_DTYPES.get(dtype, dtype))
    value = next(v for v in values if not limits.min <= v <= limits.max)
    return _explain_type(value, dtype)


def _to_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        # JSON can hold halves of surrogate pairs, which are no UTF-8.
        return value.encode(errors="replace")
    if not is_base64(value):
        raise invalid(
            f"JSON Value: {quote(value)} not formatted correctly for base64 "
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
    """Writes outputs as TensorFlow Serving's REST does.

    Args:
        outputs: Arrays by output name.
        in_rows: Whether to write rows (`predictions`, which needs the same
            first dimension in every output) or columns (`outputs`).

    Returns:
        A document for `to_json`. A single output is written without its name.

    Raises:
        StatusError: If the outputs cannot be written in rows, or a dtype has
            no form in JSON.
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
