"""Classify and Regress requests: tf.Examples, and the tensors around them."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.model_pb2 import ModelSpec

from bmt_keras.contract import SERVING_DEFAULT

from .cancel_token import CancelToken
from .servable import Servable
from .status import StatusError

INPUTS = "inputs"


def serialize_examples(inputs: Input) -> np.ndarray:
    """Turns a request's examples into what its signature parses.

    Args:
        inputs: Input with a list of tf.Example, or with one context that
            belongs to each of them.

    Returns:
        np.ndarray of bytes objects, (batch,).

    Raises:
        StatusError: If there is no example.
    """
    context = b""
    if inputs.WhichOneof("kind") == "example_list_with_context":
        examples = inputs.example_list_with_context.examples
        context = inputs.example_list_with_context.context.SerializeToString()
    else:
        examples = inputs.example_list.examples
    if not examples:
        raise invalid("Input is empty.")
    serialized = np.empty(len(examples), dtype=object)
    # Serialized messages merge by concatenation.
    serialized[:] = [context + e.SerializeToString() for e in examples]
    return serialized


def signature_name_of(model_spec: ModelSpec) -> str:
    """Returns the signature that a request means; empty is the default."""
    return model_spec.signature_name or SERVING_DEFAULT


def find_signature(
    servable: Servable, model_spec: ModelSpec, method: str, kind: str
) -> SignatureDef:
    """Finds the signature of a Classify or Regress request.

    Args:
        servable: Servable.
        model_spec: ModelSpec of the request.
        method: str. The method that the signature must be of.
        kind: str. The method in words.

    Raises:
        StatusError: If there is none, or it is of another method.
    """
    name = signature_name_of(model_spec)
    if name not in servable.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    signature = servable.signatures[name]
    check_method(signature, method, kind)
    return signature


def answer_examples(
    servable: Servable,
    request: Any,
    response: Any,
    *,
    method: str,
    kind: str,
    plan: Callable[[SignatureDef], tuple[str, list[str]]],
    fill: Callable[[Any, SignatureDef, dict[str, np.ndarray], int], None],
    timeout_ms: int | None,
    cancel: CancelToken | None,
) -> None:
    """Runs the signature of a Classify or Regress request.

    Args:
        servable: Servable that the request's model_spec names.
        request: ClassificationRequest or RegressionRequest.
        response: The answer to fill.
        method: str. The method that the signature must be of.
        kind: str. The method in words.
        plan: Tells which tensor to feed and which to fetch.
        fill: Writes the fetched tensors into the response's result.
        timeout_ms: int. Milliseconds after which the run is given up.
        cancel: CancelToken that gives it up.

    Raises:
        StatusError: If the signature does not fit, there is no example, or
            the run fails.
    """
    signature = find_signature(servable, request.model_spec, method, kind)
    feed, fetches = plan(signature)
    examples = serialize_examples(request.input)
    values = servable.run(
        {feed: examples}, fetches, timeout_ms=timeout_ms, cancel=cancel
    )
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = signature_name_of(request.model_spec)
    response.model_spec.version.value = servable.version
    named = dict(zip(fetches, values, strict=True))
    fill(response.result, signature, named, len(examples))


def check_method(signature: SignatureDef, method: str, kind: str) -> None:
    """Refuses a signature of another method than the asked one."""
    if signature.method_name != method:
        raise invalid(
            f"Expected {kind} signature method_name to be {method}. Was: "
            f"{signature.method_name}"
        )


def require_input(signature: SignatureDef, kind: str) -> str:
    """Returns the name of the one tensor that takes the examples."""
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if INPUTS not in signature.inputs:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"No {kind} inputs found in SignatureDef: {signature}",
        )
    return str(signature.inputs[INPUTS].name)


def dims_of(array: np.ndarray) -> str:
    """Returns a shape as TensorFlow writes it: "[2,3]"."""
    return "[" + ",".join(map(str, array.shape)) + "]"


def dtype_of(array: np.ndarray) -> str:
    """Returns a dtype as TensorFlow's protos call it: "DT_FLOAT"."""
    return str(DataType.Name(tf.as_dtype(array.dtype).as_datatype_enum))


def invalid(message: str) -> StatusError:
    """Returns the error of a request that does not fit."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)
