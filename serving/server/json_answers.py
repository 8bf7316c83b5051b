"""REST answers: the outputs of a model as JSON."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .status import invalid

# Outputs of this ending hold bytes, which JSON carries in base64.
_BYTES_SUFFIX = "_bytes"


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
