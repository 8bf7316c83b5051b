"""REST requests: a JSON document to the inputs of a signature."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from .json_tensors import is_base64, make_array, quote
from .status import StatusError, invalid

Inputs = Mapping[str, TensorInfo]

# What may be too large for a double.
_LARGE_EXPONENT = re.compile(r"[eE]\+?[0-9]{3}")


@dataclass(frozen=True)
class Document:
    """The body of a `:predict` request.

    Args:
        content: A JSON object with `instances` (rows) or `inputs` (columns)
            and, if it is not the default, `signature_name`. Binary values are
            objects: {"b64": "..."}.
    """

    content: dict[str, Any]

    @property
    def signature_name(self) -> str:
        """The signature; empty for the default."""
        return str(self.content.get("signature_name", ""))

    @property
    def in_rows(self) -> bool:
        """Whether the inputs come in rows, and the answer is to."""
        return "instances" in self.content

    def read_inputs(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Reads the inputs of a signature.

        Args:
            inputs: The signature's inputs by name.

        Returns:
            An array for each input.

        Raises:
            StatusError: If the document does not fit the inputs.
        """
        if not inputs:
            name = self.signature_name or "DEFAULT"
            raise invalid(f"Failed to get input map for signature: {name}")
        if self.in_rows and "inputs" in self.content:
            raise invalid(
                f"JSON Value: {quote(self.content)} Not formatted correctly "
                "expecting only one of 'inputs' or 'instances' keys to exist "
            )
        if not self.in_rows and "inputs" not in self.content:
            raise invalid("Missing 'inputs' or 'instances' key")
        try:
            if self.in_rows:
                return _read_rows(self.content, inputs)
            return _read_columns(self.content["inputs"], inputs)
        except RecursionError as error:
            # Quoting a value takes a level of calls for each of its levels.
            raise invalid(f"JSON Parse error: {error}") from error


def parse_document(body: bytes | bytearray) -> Document:
    """Parses the body of a `:predict` request.

    What follows the JSON object is ignored, as by TensorFlow Serving.

    Args:
        body: JSON in UTF-8.

    Raises:
        StatusError: If it is no JSON object, or its signature name no string.
    """
    try:
        content = _parse(body.decode().lstrip(" \t\n\r"))
        if not isinstance(content, dict):
            raise invalid(f"JSON Value: {quote(content)} Is not object")
    except json.JSONDecodeError as error:
        reason = error.msg
        if reason == "Expecting value":
            reason = "Invalid value."
        raise invalid(
            f"JSON Parse error: {reason} at offset: {error.pos}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(content.get("signature_name", ""), str):
        raise invalid(
            f"JSON Value: {quote(content)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return Document(content)


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


# === Columns ===


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


def _read_rows(
    content: dict[str, Any], inputs: Inputs
) -> dict[str, np.ndarray]:
    rows = content["instances"]
    if not isinstance(rows, list):
        raise invalid(
            f"JSON Value: {quote(content)} Excepting 'instances' to be an "
            "list/array"
        )
    if not rows:
        raise invalid(
            f"JSON Value: {quote(content)} No values in 'instances' array"
        )
    if len(inputs) > 1 and not isinstance(rows[0], dict):
        raise invalid(
            "instances is a plain list, but expecting list of objects as "
            "multiple input tensors required as per tensorinfo_map"
        )
    try:
        return _join_rows(rows, inputs)
    except StatusError:
        # Row by row, for the words about the first one that is wrong.
        _check_each_row(rows, inputs)
        raise


def _join_rows(rows: list[Any], inputs: Inputs) -> dict[str, np.ndarray]:
    """Reads rows as columns, at once."""
    if not _is_named(rows[0]):
        if any(map(_is_named, rows)):
            raise invalid("Expecting value/list but got object")
        return {name: make_array(rows, inputs[name]) for name in inputs}
    names = set(inputs)
    for row in rows:
        if not _is_named(row) or row.keys() != names:
            raise invalid("Expecting objects with the names of the inputs")
    return {
        name: make_array([row[name] for row in rows], inputs[name])
        for name in inputs
    }


def _check_each_row(rows: list[Any], inputs: Inputs) -> None:
    named = _is_named(rows[0])
    shapes: dict[str, tuple[int, ...]] = {}
    for number, row in enumerate(rows):
        if named != _is_named(row):
            expected, found = (
                ("object", "list") if named else ("value/list", "object")
            )
            raise invalid(
                f"Expecting {expected} but got {found} at item {number} of "
                "input list"
            )
        values = row if named else {next(iter(inputs)): row}
        for name, value in values.items():
            key = f" key: {name}" if named else ""
            try:
                _check_value(name, value, inputs, shapes)
            except StatusError as error:
                raise invalid(
                    f"Failed to process element: {number}{key} of 'instances' "
                    f"list. Error: INVALID_ARGUMENT: {error.message}"
                ) from error
        if set(values) != set(inputs):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. "
                f"JSON object: {quote(row)} keys must be equal to: "
                f"{','.join(sorted(inputs))}"
            )


def _check_value(
    name: str,
    value: Any,
    inputs: Inputs,
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """Checks a row's value; its shape must be that of the first row."""
    if name not in inputs:
        raise invalid(f"JSON object: does not have named input: {name}")
    found = make_array(value, inputs[name]).shape
    expected = shapes.setdefault(name, found)
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
