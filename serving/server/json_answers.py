"""REST answers: the tensors of a response as JSON."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse

from .examples import invalid
from .metadata import SIGNATURE_DEF
from .tensors import parse_tensor

# Outputs of this ending hold bytes, which JSON carries in base64.
_BYTES_SUFFIX = "_bytes"


def write_outputs(
    outputs: Mapping[str, TensorProto], *, in_rows: bool
) -> dict[str, Any]:
    """Writes a response's tensors as TensorFlow Serving's REST does.

    Args:
        outputs: mapping of output name to TensorProto.
        in_rows: bool. Whether to write rows (`predictions`, which needs the
            same first dimension in every output) or columns (`outputs`).

    Returns:
        dict, ready for `to_json`. A single output is written without its
        name.

    Raises:
        StatusError: If the outputs cannot be written in rows, or a dtype has
            no form in JSON.
    """
    names = sorted(outputs)
    arrays = {name: parse_tensor(outputs[name]) for name in names}
    if in_rows:
        _check_rows(arrays)
    columns = {name: _to_lists(name, arrays[name]) for name in names}
    if not in_rows:
        only = columns[names[0]] if len(names) == 1 else columns
        return {"outputs": only}
    if len(names) == 1:
        return {"predictions": columns[names[0]]}
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(names, r, strict=True)) for r in rows]}


def write_status(response: GetModelStatusResponse) -> dict[str, Any]:
    """Writes the state of a model's versions."""
    return MessageToDict(response, always_print_fields_with_no_presence=True)


def write_metadata(response: GetModelMetadataResponse) -> dict[str, Any]:
    """Writes a model's signatures."""
    signatures = SignatureDefMap()
    response.metadata[SIGNATURE_DEF].Unpack(signatures)
    model_spec, written = (
        MessageToDict(
            message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        for message in (response.model_spec, signatures)
    )
    return {"model_spec": model_spec, "metadata": {SIGNATURE_DEF: written}}


def to_json(document: Mapping[str, Any]) -> bytes:
    """Returns a document as it is sent; strings that are no UTF-8 included."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return text.encode(errors="surrogateescape")


def _check_rows(arrays: Mapping[str, np.ndarray]) -> None:
    batch = None
    for name, array in arrays.items():
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
        as_bytes = name.endswith(_BYTES_SUFFIX)
        return _write_strings(array.tolist(), as_bytes)
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
