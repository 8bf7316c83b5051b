"""Tensors on the wire: TensorProto to NumPy array and back."""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

# NumPy dtype -> (value field, dtype in which the field holds the bits)
_VALUE_FIELDS = {
    "float32": ("float_val", "float32"),
    "float64": ("double_val", "float64"),
    "float16": ("half_val", "uint16"),
    "bfloat16": ("half_val", "uint16"),
    "bool": ("bool_val", "bool"),
    **{
        name: ("int_val", name)
        for name in ("int8", "int16", "int32", "uint8", "uint16")
    },
    "int64": ("int64_val", "int64"),
    "uint32": ("uint32_val", "uint32"),
    "uint64": ("uint64_val", "uint64"),
    "complex64": ("scomplex_val", "float32"),
    "complex128": ("dcomplex_val", "float64"),
    "object": ("string_val", "object"),
}


def parse_tensor(proto: TensorProto) -> np.ndarray:
    """Reads a tensor as TensorFlow's runtime reads it.

    TensorFlow's own parser does the work: too few values repeat the last one,
    too many are cut, no values are zeros, and strings may come in
    `tensor_content`. `tf.make_ndarray` refuses the second and the fourth.
    """
    try:
        dtype = tf.as_dtype(proto.dtype)
        tensor = tf.io.parse_tensor(proto.SerializeToString(), dtype)
        return to_array(tensor.numpy())
    except (TypeError, tf.errors.OpError) as error:
        dims = [dim.size for dim in proto.tensor_shape.dim]
        raise ValueError(
            "A tensor's dtype, shape and values must fit together. Received: "
            f"dtype={proto.dtype}, shape={dims}"
        ) from error


def to_array(value: object) -> np.ndarray:
    """Returns a fetched value as an array, a scalar string included."""
    # NumPy alone would cut trailing zero bytes off a string.
    return np.asarray(value, dtype=object if isinstance(value, bytes) else None)


def make_tensor_proto(array: np.ndarray) -> TensorProto:
    """Writes an array into a proto's `*_val`, as TensorFlow Serving answers."""
    if array.dtype.name not in _VALUE_FIELDS:
        # Rarer dtypes (8-bit floats) use `tensor_content`.
        return tf.make_tensor_proto(array)
    field, wire_dtype = _VALUE_FIELDS[array.dtype.name]
    proto = TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    values = np.ascontiguousarray(array).reshape(-1)
    if values.dtype.name != wire_dtype:
        # A complex number becomes two values.
        values = values.view(wire_dtype)
    getattr(proto, field).extend(values.tolist())
    return proto
