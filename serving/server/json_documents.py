"""REST's documents: JSON to the inputs of a signature, outputs to JSON."""

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from .servable import runtime_name
from .status import invalid

Document = dict[str, Any]
Inputs = Mapping[str, TensorInfo]

# What may be too large for a double.
_LARGE_EXPONENT = re.compile(r"[eE]\+?[0-9]{3}")
# A NumPy dtype's kind -> the types of its values in JSON
_VALUE_TYPES: dict[str, set[type]] = {
    "f": {int, float},
    "i": {int},
    "u": {int},
    "b": {bool},
    "O": {str, dict},
}


# === Requests ===


def parse_document(body: bytes | bytearray) -> Document:
    """Parses the body of a `:predict` request; what follows it is ignored."""
    try:
        text = body.decode().lstrip()
        # Python's own conversion is several times as fast, but gives infinity.
        parse_float = _parse_float if _LARGE_EXPONENT.search(text) else None
        decoder = json.JSONDecoder(parse_float=parse_float)
        document = decoder.raw_decode(text)[0]
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_quote(document)} Is not object")
    if not isinstance(document.get("signature_name", ""), str):
        raise invalid("'signature_name' key must be a string value.")
    return document


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"Number too big to be stored in double: {text}")
    return value


def read_inputs(document: Document, inputs: Inputs) -> dict[str, np.ndarray]:
    """Reads a signature's inputs from `instances` (rows) or `inputs`."""
    if "instances" in document and "inputs" in document:
        raise invalid(
            "Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist"
        )
    if "instances" in document:
        value = _join_rows(document["instances"], inputs)
    elif "inputs" in document:
        value = document["inputs"]
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    if not _is_named(value):
        if len(inputs) > 1:
            raise invalid(
                "A plain value/list was sent, but expecting objects as "
                "multiple input tensors required as per tensorinfo_map"
            )
        value = dict.fromkeys(inputs, value)
    arrays = {}
    for name, info in inputs.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        try:
            arrays[name] = make_array(value[name], info)
        except (ValueError, OverflowError) as error:
            raise invalid(f"Input {name}: {error}") from error
    return arrays


def _join_rows(rows: Any, inputs: Inputs) -> Any:
    if not isinstance(rows, list) or not rows:
        raise invalid(
            f"JSON Value: {_quote(rows)} Expecting 'instances' to be a "
            "list/array with values"
        )
    if not any(map(_is_named, rows)):
        return rows
    for number, row in enumerate(rows):
        if not _is_named(row) or row.keys() != inputs.keys():
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. "
                f"JSON object: {_quote(row)} keys must be equal to: "
                f"{','.join(sorted(inputs))}"
            )
    return {name: [row[name] for row in rows] for name in inputs}


def _is_named(value: Any) -> bool:
    # An object of this one key is a string.
    return isinstance(value, dict) and value.keys() != {"b64"}


def _quote(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:256]


# === Values ===


def make_array(value: Any, info: TensorInfo) -> np.ndarray:
    """Reads a tensor of an input's dtype from a value or lists of them.

    Numbers are rounded to a float dtype, or become infinite.

    Raises:
        ValueError: If a value is of another type, or the lists do not fit.
        OverflowError: If an integer does not fit the dtype.
    """
    dtype = tf.as_dtype(info.dtype)
    # Types are compared and values converted by functions in C, not one by one.
    values = np.array(value, dtype=object)
    types = set(map(type, values.ravel()))
    if list in types:
        raise ValueError(
            f"JSON Value: {_quote(value)} Encountered list at unexpected size "
            "or level"
        )
    array_dtype = np.dtype(dtype.as_numpy_dtype)
    if types - _VALUE_TYPES.get(array_dtype.kind, set()):
        raise ValueError(
            f"JSON Value: {_quote(value)} is not of expected type: "
            f"{runtime_name(dtype)}"
        )
    if dtype == tf.string:
        values[...] = np.vectorize(_to_bytes, otypes=[object])(values)
        return values
    # Too large for the dtype becomes infinite, without a warning.
    with np.errstate(over="ignore"):
        return values.astype(array_dtype)


def _to_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        # JSON can hold halves of surrogate pairs, which are no UTF-8.
        return value.encode(errors="replace")
    try:
        # As Abseil decodes: white space is skipped, the padding may be
        # missing, the URL-safe alphabet is refused.
        text = "".join(value["b64"].split())
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"Unable to base64 decode {_quote(value)}") from error


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
        # JSON carries bytes in base64.
        write = _write_base64 if name.endswith("_bytes") else _write_text
        return np.vectorize(write, otypes=[object])(array).tolist()
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


def _write_base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _write_text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")
