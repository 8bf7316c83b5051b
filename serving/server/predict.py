"""The Predict call: request checked, signature run, response written."""

import math
from collections.abc import Iterable, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.python.framework import tensor_util
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from bmt_keras.contract import SERVING_DEFAULT

from .run_pool import Limits
from .servable import Servable, to_array
from .status import StatusError, invalid


def predict(
    servable: Servable, request: PredictRequest, limits: Limits
) -> PredictResponse:
    """Answers a Predict request with TensorFlow Serving's checks and messages.

    The order of the checks is the signature, the number of inputs, each input
    by itself, the output filter; the model's own checks come last, in the run.
    """
    name = request.model_spec.signature_name or SERVING_DEFAULT
    if name not in servable.signatures:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'Serving signature key "{name}" not found.',
        )
    signature = servable.signatures[name]
    inputs = _read_inputs(signature, request, limits)
    _check_filter(signature, request.output_filter)
    # An empty filter means every output.
    aliases = list(request.output_filter) or sorted(signature.outputs)
    outputs = servable.run(
        signature, inputs, aliases, timeout_ms=limits.timeout_ms
    )

    response = PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = name
    response.model_spec.version.value = servable.version
    for alias, array in outputs.items():
        response.outputs[alias].CopyFrom(make_tensor_proto(array))
    return response


# === Checks ===


def _read_inputs(
    signature: SignatureDef, request: PredictRequest, limits: Limits
) -> dict[str, np.ndarray]:
    sent, known = set(request.inputs), set(signature.inputs)
    # Defaults may stand in for inputs that were not sent.
    if sent - known if signature.defaults else len(sent) != len(known):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(known)} "
            f"len({_braced(sent)}) != len({_braced(known)}). "
            f"Sent extra: {_braced(sent - known)}. "
            f"Missing but required: {_braced(known - sent)}."
        )
    inputs = {}
    for alias, info in sorted(signature.inputs.items()):
        if alias in request.inputs:
            proto = request.inputs[alias]
        elif alias in signature.defaults:
            proto = signature.defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {info.name}) not "
                "found in request and no default value provided. Inputs "
                f"expected to be in the request {_braced(sent)}, or "
                "default input alias set: "
                f"{','.join(sorted(signature.defaults))}"
            )
        # One after another: the first that cannot be parsed is named.
        limits.check()
        try:
            inputs[alias] = parse_tensor(proto, limits)
        except ValueError as error:
            raise invalid(f"tensor parsing error: {alias}") from error
    return inputs


def _check_filter(
    signature: SignatureDef, output_filter: Sequence[str]
) -> None:
    for position, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs "
                f"expected to be in the set {_braced(signature.outputs)}."
            )
        if alias in output_filter[:position]:
            raise invalid(f"duplicate output tensor alias: {alias}")


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


# === Tensors on the wire ===


def parse_tensor(proto: TensorProto, limits: Limits) -> np.ndarray:
    """Reads a tensor as TensorFlow's runtime reads it.

    TensorFlow's own parser does the work: too few values repeat the last one,
    too many are cut, no values are zeros, and strings may come in
    `tensor_content`. `tf.make_ndarray` refuses the second and the fourth.
    """
    try:
        dtype = tf.as_dtype(proto.dtype)
        # A shape of a few bytes may stand for any number of repeated values.
        count = math.prod(dim.size for dim in proto.tensor_shape.dim)
        limits.check_bytes(count * np.dtype(dtype.as_numpy_dtype).itemsize)
        tensor = tf.io.parse_tensor(proto.SerializeToString(), dtype)
        return to_array(tensor.numpy())
    except (TypeError, tf.errors.OpError) as error:
        raise ValueError("Dtype, shape, values must fit together") from error


def make_tensor_proto(array: np.ndarray) -> TensorProto:
    """Writes an array into a proto's `*_val`, as TensorFlow Serving answers."""
    proto = TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    # `tf.make_tensor_proto` would write most dtypes into `tensor_content`.
    tensor_util.GetNumpyAppendFn(array.dtype)(proto, array.ravel())
    return proto
