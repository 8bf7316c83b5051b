"""The Classify call: examples in, classes with scores out."""

import grpc
import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.classification_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
    ClassificationResult,
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

METHOD = "tensorflow/serving/classify"
_KIND = "classification"
_CLASSES, _SCORES = "classes", "scores"


def classify(
    servable: Servable,
    request: ClassificationRequest,
    *,
    timeout_ms: int | None = None,
    cancel: CancelToken | None = None,
) -> ClassificationResponse:
    """Answers a Classify request with TensorFlow Serving's checks.

    Args:
        servable: Servable that the request's model_spec names.
        request: ClassificationRequest.
        timeout_ms: int. Milliseconds after which the run is given up.
        cancel: CancelToken that gives it up.

    Returns:
        ClassificationResponse, one row an example.

    Raises:
        StatusError: If the signature is none that classifies, the request
            holds no example, or the run fails.
    """
    response = ClassificationResponse()
    answer_examples(
        servable,
        request,
        response,
        method=METHOD,
        kind=_KIND,
        plan=plan_classification,
        fill=fill_classification,
        timeout_ms=timeout_ms,
        cancel=cancel,
    )
    return response


def plan_classification(signature: SignatureDef) -> tuple[str, list[str]]:
    """Returns the tensor to feed examples into and those to fetch."""
    check_method(signature, METHOD, _KIND)
    feed = require_input(signature, _KIND)
    outputs = signature.outputs
    if len(outputs) not in (1, 2):
        raise invalid(
            f"Expected one or two output Tensors, found {len(outputs)}"
        )
    fetches = [outputs[n].name for n in (_CLASSES, _SCORES) if n in outputs]
    if not fetches:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "Expected classification signature outputs to contain at least one "
            f'of "{_CLASSES}" or "{_SCORES}". Signature was: {signature}',
        )
    return feed, fetches


def fill_classification(
    result: ClassificationResult,
    signature: SignatureDef,
    values: dict[str, np.ndarray],
    num_examples: int,
) -> None:
    """Writes fetched tensors into a result.

    Args:
        result: ClassificationResult to fill.
        signature: SignatureDef that was run.
        values: dict of tensor name to np.ndarray, (batch, num_classes).
        num_examples: int, the batch.

    Raises:
        StatusError: If a tensor's dtype or shape is another.
    """
    outputs = signature.outputs
    columns = {}
    for name, dtype in ((_CLASSES, "DT_STRING"), (_SCORES, "DT_FLOAT")):
        if name in outputs:
            columns[name] = values[outputs[name].name]
            _check(columns[name], name, dtype, num_examples)
    widths = [array.shape[1] for array in columns.values()]
    if len(set(widths)) > 1:
        raise invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{widths[0]} vs. {widths[1]}"
        )
    for row in range(num_examples):
        classifications = result.classifications.add()
        for column in range(widths[0]):
            each = classifications.classes.add()
            if _CLASSES in columns:
                each.label = columns[_CLASSES][row, column]
            if _SCORES in columns:
                each.score = columns[_SCORES][row, column]


def _check(array: np.ndarray, name: str, dtype: str, num_examples: int) -> None:
    if array.ndim != 2:
        raise invalid(
            "Expected Tensor shape: [batch_size num_classes] but got "
            f"{dims_of(array)}"
        )
    if dtype_of(array) != dtype:
        raise invalid(
            f"Expected {name} Tensor of {dtype}. Got: {dtype_of(array)}"
        )
    if len(array) != num_examples:
        raise invalid(
            f"Expected {name} output batch size of {num_examples}. Got: "
            f"{len(array)}"
        )
