"""The Regress call: examples in, a number for each out."""

import grpc
import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.regression_pb2 import (
    RegressionRequest,
    RegressionResponse,
    RegressionResult,
)

from .cancel_token import CancelToken
from .examples import (
    answer_examples,
    check_method,
    dims_of,
    dtype_of,
    invalid,
    require_input,
)
from .servable import Servable
from .status import StatusError

METHOD = "tensorflow/serving/regress"
_KIND = "regression"
_OUTPUTS = "outputs"


def regress(
    servable: Servable,
    request: RegressionRequest,
    *,
    timeout_ms: int | None = None,
    cancel: CancelToken | None = None,
) -> RegressionResponse:
    """Answers a Regress request with TensorFlow Serving's checks.

    Args:
        servable: Servable that the request's model_spec names.
        request: RegressionRequest.
        timeout_ms: int. Milliseconds after which the run is given up.
        cancel: CancelToken that gives it up.

    Returns:
        RegressionResponse, one value an example.

    Raises:
        StatusError: If the signature is none that regresses, the request
            holds no example, or the run fails.
    """
    response = RegressionResponse()
    answer_examples(
        servable,
        request,
        response,
        method=METHOD,
        kind=_KIND,
        plan=plan_regression,
        fill=fill_regression,
        timeout_ms=timeout_ms,
        cancel=cancel,
    )
    return response


def plan_regression(signature: SignatureDef) -> tuple[str, list[str]]:
    """Returns the tensor to feed examples into and that to fetch."""
    check_method(signature, METHOD, _KIND)
    if len(signature.inputs) == 1 and len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    feed = require_input(signature, _KIND)
    if _OUTPUTS not in signature.outputs:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"No regression outputs found in SignatureDef: {signature}",
        )
    return feed, [signature.outputs[_OUTPUTS].name]


def fill_regression(
    result: RegressionResult,
    signature: SignatureDef,
    values: dict[str, np.ndarray],
    num_examples: int,
) -> None:
    """Writes a fetched tensor into a result.

    Args:
        result: RegressionResult to fill.
        signature: SignatureDef that was run.
        values: dict of tensor name to np.ndarray, (batch,) or (batch, 1).
        num_examples: int, the batch.

    Raises:
        StatusError: If the tensor's dtype or shape is another.
    """
    array = values[signature.outputs[_OUTPUTS].name]
    if array.ndim != 1 and (array.ndim != 2 or array.shape[1] != 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or "
            f"[batch_size, 1] but got {dims_of(array)}"
        )
    if len(array) != num_examples:
        raise invalid(
            "Input batch size did not match output batch size: "
            f"{num_examples} vs. {len(array)}"
        )
    if dtype_of(array) != "DT_FLOAT":
        raise invalid(
            f"Expected output Tensor of DT_FLOAT.  Got: {dtype_of(array)}"
        )
    for value in array.reshape(-1).tolist():
        result.regressions.add(value=value)
