"""REST requests: a JSON document to the inputs of a signature."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from .json_tensors import is_base64, make_array, quote
from .status import StatusError, invalid

Document = dict[str, Any]
Inputs = Mapping[str, TensorInfo]

# What may be too large for a double.
_LARGE_EXPONENT = re.compile(r"[eE]\+?[0-9]{3}")


def parse_document(body: bytes | bytearray) -> Document:
    """Parses the body of a `:predict` request.

    Args:
        body: JSON in UTF-8. What follows its first value is ignored, as by
            TensorFlow Serving.

    Returns:
        A document with a string, if any, as `signature_name`.

    Raises:
        StatusError: If it is no JSON object, or its signature name no string.
    """
    try:
        document = _parse(body.decode().lstrip(" \t\n\r"))
        if not isinstance(document, dict):
            raise invalid(f"JSON Value: {quote(document)} Is not object")
        if not isinstance(document.get("signature_name", ""), str):
            raise invalid(
                f"JSON Value: {quote(document)} not formatted correctly. "
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
    """Reads the inputs of a signature from a document.

    Args:
        document: A JSON object with `instances` (rows) or `inputs` (columns).
            Binary values are objects: {"b64": "..."}.
        inputs: The signature's inputs by name.

    Returns:
        An array for each input.

    Raises:
        StatusError: If the document does not fit the inputs.
    """
    if not inputs:
        name = document.get("signature_name") or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {name}")
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {quote(document)} Not formatted correctly expecting "
            "only one of 'inputs' or 'instances' keys to exist "
        )
    try:
        if "instances" in document:
            return _read_rows(document, inputs)
        if "inputs" in document:
            return _read_columns(document["inputs"], inputs)
    except RecursionError as error:
        # Quoting a value takes a level of calls for each of its levels.
        raise invalid(f"JSON Parse error: {error}") from error
    raise invalid("Missing 'inputs' or 'instances' key")


def _parse(text: str) -> Any:
    if not text:
        raise invalid("JSON Parse error: The document is empty")
    # Python's own conversion is several times as fast, but gives infinity.
    parse_float = _parse_float if _LARGE_EXPONENT.search(text) else None
    return json.JSONDecoder(parse_float=parse_float).raw_decode(text)[0]


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"Number too big to be stored in double: {text}")
    return value


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _read_columns(value: Any, inputs: Inputs) -> dict[str, np.ndarray]:
    if not _is_named(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as "
                "multiple input tensors required as per tensorinfo_map"
            )
        value = {next(iter(inputs)): value}
    for name in inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: make_array(value[name], inputs[name]) for name in inputs}


# === Rows ===


def _read_rows(document: Document, inputs: Inputs) -> dict[str, np.ndarray]:
    rows = document["instances"]
    if not isinstance(rows, list):
        raise invalid(
            f"JSON Value: {quote(document)} Excepting 'instances' to be an "
            "list/array"
        )
    if not rows:
        raise invalid(
            f"JSON Value: {quote(document)} No values in 'instances' array"
        )
    if len(inputs) > 1 and not isinstance(rows[0], dict):
        raise invalid(
            "instances is a plain list, but expecting list of objects as "
            "multiple input tensors required as per tensorinfo_map"
        )
    named = _is_named(rows[0])
    for number, row in enumerate(rows):
        if named != _is_named(row):
            expected, found = (
                ("object", "list") if named else ("value/list", "object")
            )
            raise invalid(
                f"Expecting {expected} but got {found} at item {number} of "
                "input list"
            )
        if named and row.keys() != inputs.keys():
            raise _explain_names(number, row, inputs)
    if not named:
        return {name: _join(rows, inputs[name]) for name in inputs}
    return {
        name: _join([row[name] for row in rows], inputs[name], f" key: {name}")
        for name in inputs
    }


def _explain_names(number: int, row: Document, inputs: Inputs) -> StatusError:
    for name in row:
        if name not in inputs:
            reason = f"JSON object: does not have named input: {name}"
            return _explain_element(number, f" key: {name}", reason)
    return invalid(
        f"Failed to process element: {number} of 'instances' list. JSON "
        f"object: {quote(row)} keys must be equal to: "
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
        expected: tuple[int, ...] | None = None
        for number, value in enumerate(values):
            try:
                shape = make_array(value, info).shape
                expected = shape if expected is None else expected
                _check_same_shape(expected, shape)
            except StatusError as error:
                raise _explain_element(number, key, error.message) from error
        raise


def _check_same_shape(
    expected: tuple[int, ...], found: tuple[int, ...]
) -> None:
    if math.prod(expected) != math.prod(found):
        raise invalid(
            f"Expecting tensor size: {math.prod(expected)} but got: "
            f"{math.prod(found)}"
        )
    if expected != found:
        first, second = (
            f"[{','.join(map(str, dims))}]" for dims in (expected, found)
        )
        raise invalid(f"Expecting shape {first} but got: {second}")
