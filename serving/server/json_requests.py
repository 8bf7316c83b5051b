"""REST requests: a JSON document to the tensors of a Predict request."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from .examples import invalid
from .json_tensors import is_base64, make_tensor, write_json
from .status import StatusError

Inputs = Mapping[str, TensorInfo]


def read_predict_request(
    body: bytes, find_inputs: Callable[[str], Inputs]
) -> tuple[PredictRequest, bool]:
    """Reads the body of a `:predict` request.

    Args:
        body: bytes of a JSON object with `instances` (rows) or `inputs`
            (columns) and, if it is not the default, `signature_name`. Binary
            values are objects: {"b64": "..."}.
        find_inputs: function of a signature's name (empty for the default)
            that returns its inputs.

    Returns:
        PredictRequest without a model name, and whether it came in rows.

    Raises:
        StatusError: If the document does not fit the signature.
    """
    document = _parse(body)
    request = PredictRequest()
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {write_json(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    request.model_spec.signature_name = name
    inputs = find_inputs(name)
    if not inputs:
        raise invalid(
            f"Failed to get input map for signature: {name or 'DEFAULT'}"
        )
    in_rows, in_columns = "instances" in document, "inputs" in document
    if in_rows and in_columns:
        raise invalid(
            f"JSON Value: {write_json(document)} Not formatted correctly "
            "expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if in_rows:
        _read_rows(document, inputs, request)
    elif in_columns:
        _read_columns(document["inputs"], inputs, request)
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    return request, in_rows


def _parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        reason = error.msg
        if reason == "Expecting value":
            reason = "Invalid value."
        raise invalid(
            f"JSON Parse error: {reason} at offset: {error.pos}"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {write_json(document)} Is not object")
    return document


# === Rows ===


def _read_rows(
    document: dict[str, Any], inputs: Inputs, request: PredictRequest
) -> None:
    rows = document["instances"]
    if not isinstance(rows, list):
        raise invalid(
            f"JSON Value: {write_json(document)} Excepting 'instances' to be "
            "an list/array"
        )
    if not rows:
        raise invalid(
            f"JSON Value: {write_json(document)} No values in 'instances' array"
        )
    if len(inputs) > 1 and not isinstance(rows[0], dict):
        raise invalid(
            "instances is a plain list, but expecting list of objects as "
            "multiple input tensors required as per tensorinfo_map"
        )
    named = _is_named(rows[0])
    columns: dict[str, list[TensorProto]] = {name: [] for name in inputs}
    for number, row in enumerate(rows):
        _read_row(number, row, named, inputs, columns)
    for name, tensors in columns.items():
        joined = request.inputs[name]
        joined.dtype = inputs[name].dtype
        joined.tensor_shape.dim.add(size=len(rows))
        joined.tensor_shape.MergeFrom(tensors[0].tensor_shape)
        for tensor in tensors:
            tensor.ClearField("tensor_shape")
            tensor.ClearField("dtype")
            joined.MergeFrom(tensor)


def _read_row(
    number: int,
    row: Any,
    named: bool,
    inputs: Inputs,
    columns: dict[str, list[TensorProto]],
) -> None:
    if named != _is_named(row):
        expected, found = (
            ("object", "list") if named else ("value/list", "object")
        )
        raise invalid(
            f"Expecting {expected} but got {found} at item {number} of input "
            "list"
        )
    values = row if named else {next(iter(inputs)): row}
    for name, value in values.items():
        key = f" key: {name}" if named else ""
        try:
            if name not in inputs:
                raise invalid(f"JSON object: does not have named input: {name}")
            tensor = make_tensor(value, inputs[name])
            _check_same_shape(columns[name], tensor)
        except StatusError as error:
            raise invalid(
                f"Failed to process element: {number}{key} of 'instances' "
                f"list. Error: INVALID_ARGUMENT: {error.message}"
            ) from error
        columns[name].append(tensor)
    if set(values) != set(inputs):
        raise invalid(
            f"Failed to process element: {number} of 'instances' list. JSON "
            f"object: {write_json(row)} keys must be equal to: "
            f"{','.join(sorted(inputs))}"
        )


def _check_same_shape(earlier: list[TensorProto], tensor: TensorProto) -> None:
    if not earlier:
        return
    expected, found = (_dims(proto) for proto in (earlier[0], tensor))
    if math.prod(expected) != math.prod(found):
        raise invalid(
            f"Expecting tensor size: {math.prod(expected)} but got: "
            f"{math.prod(found)}"
        )
    if expected != found:
        told = (f"[{','.join(map(str, dims))}]" for dims in (expected, found))
        raise invalid("Expecting shape {} but got: {}".format(*told))


# === Columns ===


def _read_columns(value: Any, inputs: Inputs, request: PredictRequest) -> None:
    if not _is_named(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as "
                "multiple input tensors required as per tensorinfo_map"
            )
        value = {next(iter(inputs)): value}
    for name, info in inputs.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        request.inputs[name].CopyFrom(make_tensor(value[name], info))


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _dims(tensor: TensorProto) -> tuple[int, ...]:
    return tuple(dim.size for dim in tensor.tensor_shape.dim)
