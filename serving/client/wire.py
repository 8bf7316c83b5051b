"""Tensors on the wire, as the client needs them: plain lists in and out."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto

_FIELDS = {
    types_pb2.DT_STRING: ("string_val", object),
    types_pb2.DT_FLOAT: ("float_val", np.float32),
    types_pb2.DT_INT32: ("int_val", np.int32),
    types_pb2.DT_INT64: ("int64_val", np.int64),
}


def make_strings(values: Sequence[bytes]) -> TensorProto:
    """Returns a string tensor of shape (batch,)."""
    proto = TensorProto(dtype=types_pb2.DT_STRING, string_val=values)
    proto.tensor_shape.dim.add(size=len(values))
    return proto


def make_ints(values: Sequence[int]) -> TensorProto:
    """Returns an int32 tensor of shape (batch,)."""
    proto = TensorProto(dtype=types_pb2.DT_INT32, int_val=values)
    proto.tensor_shape.dim.add(size=len(values))
    return proto


def read_rows(proto: TensorProto) -> list[Any]:
    """Reads a tensor as nested lists, a row each.

    Both forms in which TensorFlow Serving answers are read: value fields, the
    usual one, and `tensor_content`, which a flag of the server asks for.

    Args:
        proto: A tensor of string, float32, int32 or int64 and of rank 1 or
            more.

    Returns:
        The rows along the 0-th dimension; strings are bytes.

    Raises:
        ValueError: The dtype is another one, or values and shape do not fit.
    """
    if proto.dtype not in _FIELDS:
        raise ValueError(
            "A tensor must be of string, float32, int32 or int64. Received: "
            f"{types_pb2.DataType.Name(proto.dtype)}."
        )
    field, dtype = _FIELDS[proto.dtype]
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if not shape:
        raise ValueError("A tensor must have rows. Received: a scalar.")
    if not proto.tensor_content:
        values = list(getattr(proto, field))
    elif proto.dtype == types_pb2.DT_STRING:
        values = list(_split_strings(proto.tensor_content, math.prod(shape)))
    else:
        values = np.frombuffer(proto.tensor_content, dtype).tolist()
    if len(values) != math.prod(shape):
        raise ValueError(
            "A tensor must hold as many values as its shape tells. Received: "
            f"{len(values)} values, shape {shape}."
        )
    array = np.empty(len(values), dtype=dtype)
    array[:] = values
    rows: list[Any] = array.reshape(shape).tolist()
    return rows


def _split_strings(content: bytes, count: int) -> Iterator[bytes]:
    """Splits packed strings: all lengths as varints, then all bytes."""
    at, lengths = 0, []
    for _ in range(count):
        length = shift = 0
        while True:
            byte = content[at : at + 1]
            if not byte:
                return
            at += 1
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                break
        lengths.append(length)
    for length in lengths:
        yield content[at : at + length]
        at += length
