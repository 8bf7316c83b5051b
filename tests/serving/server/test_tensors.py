"""Tensors on the wire are read and written as TensorFlow's runtime does."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import (
    DT_FLOAT,
    DT_INT8,
    DT_INVALID,
    DT_STRING,
)

from bmt_keras.serving.server.predict import make_tensor_proto, parse_tensor
from bmt_keras.serving.server.run_pool import Limits
from bmt_keras.serving.server.status import StatusError


def _proto(dtype, shape, **fields):
    proto = TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (_proto(DT_FLOAT, [0], float_val=[1]), []),
        (_proto(DT_FLOAT, [], float_val=[4]), 4.0),
        (_proto(DT_INT8, [2], int_val=[300, 5]), [44, 5]),
        (_proto(DT_STRING, [3], string_val=[b"a", b"b"]), [b"a", b"b", b"b"]),
        (_proto(DT_STRING, [2], tensor_content=b"\1\2abc"), [b"a", b"bc"]),
        (_proto(DT_STRING, [], string_val=[b"a\0"]), b"a\0"),
    ],
)
def test_values_are_fitted_to_the_shape(proto, expected):
    array = parse_tensor(proto, Limits())
    assert array.tolist() == expected
    assert array.shape == tuple(d.size for d in proto.tensor_shape.dim)


@pytest.mark.parametrize(
    "proto",
    [
        _proto(DT_INVALID, [1]),
        _proto(999, [1]),
        _proto(DT_FLOAT, [-1], float_val=[1]),
        _proto(DT_FLOAT, [2], tensor_content=b"1234567"),
        _proto(DT_STRING, [2], tensor_content=b"\1\2ab"),
    ],
)
def test_tensor_that_does_not_fit_is_refused(proto):
    with pytest.raises(ValueError, match="must fit together"):
        parse_tensor(proto, Limits())


@pytest.mark.parametrize("shape", [[2**40], [2**20, 2**20], [26]])
def test_shape_that_expands_beyond_the_limit_is_refused(shape):
    parse_tensor(_proto(DT_FLOAT, [25], float_val=[1]), Limits(100))
    for proto in (
        _proto(DT_FLOAT, shape, float_val=[1]),
        _proto(DT_STRING, shape, string_val=[b"a"]),
    ):
        with pytest.raises(StatusError, match="RESOURCE_EXHAUSTED"):
            parse_tensor(proto, Limits(100))


@pytest.mark.parametrize(
    "array",
    [
        np.float32([[1.5, -2.0]]),
        np.array([[b"a", b"b\0"]], dtype=object),
        np.array(b"", dtype=object),
        np.float32([[1, 2], [3, 4]]).T,
        np.zeros([0, 3], np.int64),
        np.array([1, -2], tf.dtypes.experimental.float8_e4m3fn.as_numpy_dtype),
    ],
)
def test_written_tensor_reads_back_the_same(array):
    back = parse_tensor(make_tensor_proto(array), Limits())
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()
