"""REST's documents: JSON to the inputs of a signature, outputs to JSON."""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from .json_text import ATOM, EMPTY, NAMED, PIECE, find_children, find_end
from .run_pool import Limits
from .servable import runtime_name
from .status import invalid

# The members of an object, each as JSON.
Document = Mapping[str, bytes]
Inputs = Mapping[str, TensorInfo]

_MEMBERS = ("signature_name", "inputs", "instances")
_WORD = re.compile(rb"[^\[\],\s]+")
# NumPy allows no more.
_MAX_DIMENSIONS = 64
# A NumPy dtype's kind -> the types of its values in JSON
_VALUE_TYPES: dict[str, set[type]] = {
    "f": {int, float},
    "i": {int},
    "u": {int},
    "b": {bool},
    "O": {str, dict},
}


# === Requests ===


def parse_document(body: bytes, limits: Limits) -> Document:
    """Takes a `:predict` request apart; what follows it is ignored."""
    body = body.lstrip()
    if not body.startswith(b"{"):
        end = find_end(body, 0, limits)
        raise invalid(f"JSON Value: {_quote(body[:end])} Is not object")
    members = find_children(body, limits)
    document = {name: text for name, text in members if name in _MEMBERS}
    if not document.get("signature_name", b'"').startswith(b'"'):
        raise invalid("'signature_name' key must be a string value.")
    return document


def read_inputs(
    document: Document, inputs: Inputs, limits: Limits
) -> dict[str, np.ndarray]:
    """Reads a signature's inputs from `instances` (rows) or `inputs`."""
    if "instances" in document and "inputs" in document:
        raise invalid(
            "Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist"
        )
    if "instances" in document:
        named = _join_rows(document["instances"], inputs, limits)
    elif "inputs" in document:
        named = _name_columns(document["inputs"], inputs, limits)
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    arrays = {}
    for name, info in inputs.items():
        if name not in named:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        try:
            arrays[name] = make_array(named[name], info, limits)
        except (ValueError, OverflowError) as error:
            raise invalid(f"Input {name}: {error}") from error
    return arrays


def _name_columns(value: bytes, inputs: Inputs, limits: Limits) -> Document:
    if NAMED.match(value):
        return dict(find_children(value, limits))
    if len(inputs) > 1:
        raise invalid(
            "A plain value/list was sent, but expecting objects as "
            "multiple input tensors required as per tensorinfo_map"
        )
    return dict.fromkeys(inputs, value)


def _join_rows(rows: bytes, inputs: Inputs, limits: Limits) -> Document:
    if not rows.startswith(b"[") or EMPTY.match(rows):
        raise invalid(
            f"JSON Value: {_quote(rows)} Expecting 'instances' to be a "
            "list/array with values"
        )
    if not NAMED.match(rows, 1):
        return _name_columns(rows, inputs, limits)
    columns = {name: bytearray(b"[") for name in inputs}
    for number, (_, row) in enumerate(find_children(rows, limits)):
        values = dict(find_children(row, limits)) if NAMED.match(row) else {}
        if values.keys() != inputs.keys():
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. "
                f"JSON object: {_quote(row)} keys must be equal to: "
                f"{','.join(sorted(inputs))}"
            )
        for name, value in values.items():
            columns[name] += value + b","
    return {name: bytes(text[:-1] + b"]") for name, text in columns.items()}


def _quote(text: bytes) -> str:
    return text[:256].decode(errors="replace")


# === Values ===


def make_array(text: bytes, info: TensorInfo, limits: Limits) -> np.ndarray:
    """Reads a tensor of an input's dtype from a JSON value or lists of them.

    Numbers are rounded to a float dtype, or become infinite.

    Raises:
        ValueError: If a value is of another type, or the lists do not fit.
        OverflowError: If an integer does not fit the dtype.
        StatusError: If the call is to end.
    """
    dtype = tf.as_dtype(info.dtype)
    array_dtype = np.dtype(dtype.as_numpy_dtype)
    parts: list[np.ndarray] = []
    lists = bytearray()
    for piece in PIECE.finditer(text):
        limits.check()
        # With no string in it, it is read several times as fast.
        atom = ATOM if b'"' in piece[0] else _WORD
        atoms = b",".join(atom.findall(piece[0]))
        listed = f"[{atoms.decode(errors='surrogateescape')}]"
        values: list[Any] = [None] if piece[1] else json.loads(listed)
        # In C, as the conversion: not one by one.
        if set(map(type, values)) - _VALUE_TYPES.get(array_dtype.kind, set()):
            raise ValueError(
                f"JSON Value: {_quote(text)} is not of expected type: "
                f"{runtime_name(dtype)}"
            )
        if dtype == tf.string:
            values = [_to_bytes(value) for value in values]
        # Too large for the dtype becomes infinite, without a warning.
        with np.errstate(over="ignore"):
            parts.append(np.array(values, dtype=object).astype(array_dtype))
        lists += b"".join(atom.sub(b"0", piece[0]).split())
    return np.concatenate(parts).reshape(_read_shape(bytes(lists), text))


def _to_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        return value.encode(errors="surrogateescape")
    try:
        # As Abseil decodes: white space is skipped, the padding may be
        # missing, the URL-safe alphabet is refused.
        text = "".join(value["b64"].split())
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        found = json.dumps(value)[:256]
        raise ValueError(f"Unable to base64 decode {found}") from error


def _read_shape(lists: bytes, text: bytes) -> list[int]:
    """Reads the shape of lists of which each value is written as 0."""
    depth = len(lists) - len(lists.lstrip(b"["))
    # From the innermost list outwards, all lists of a depth must be the same.
    inner = b"0"
    shape: list[int] = []
    for level in range(1, min(depth, _MAX_DIMENSIONS + 1) + 1):
        end = lists.find(b"]" * level) + level
        size = (end - (depth - level) - 1) // (len(inner) + 1)
        inner = b"[" + (inner + b",") * size
        inner = inner.removesuffix(b",") + b"]"
        shape.insert(0, size)
    if inner != lists or depth > _MAX_DIMENSIONS:
        raise ValueError(
            f"JSON Value: {_quote(text)} Encountered list at unexpected size "
            "or level"
        )
    return shape


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
