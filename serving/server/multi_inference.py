"""The MultiInference call: several heads over the same examples, in one run."""

import grpc
from tensorflow_serving.apis.inference_pb2 import (
    InferenceTask,
    MultiInferenceRequest,
    MultiInferenceResponse,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

from .cancel_token import CancelToken
from .classify import METHOD as CLASSIFY
from .classify import fill_classification, plan_classification
from .examples import invalid, serialize_examples, signature_name_of
from .regress import METHOD as REGRESS
from .regress import fill_regression, plan_regression
from .servable import Servable
from .status import StatusError

_PLANS = {CLASSIFY: plan_classification, REGRESS: plan_regression}


def first_model_spec(request: MultiInferenceRequest) -> ModelSpec:
    """Returns the model_spec by which the request's model is found."""
    return request.tasks[0].model_spec if request.tasks else ModelSpec()


def multi_inference(
    servable: Servable,
    request: MultiInferenceRequest,
    *,
    timeout_ms: int | None = None,
    cancel: CancelToken | None = None,
) -> MultiInferenceResponse:
    """Answers a MultiInference request with TensorFlow Serving's checks.

    Args:
        servable: Servable that the first task's model_spec names.
        request: MultiInferenceRequest, each task with a signature of its own
            over the same input tensor.
        timeout_ms: int. Milliseconds after which the run is given up.
        cancel: CancelToken that gives it up.

    Returns:
        MultiInferenceResponse, one result a task.

    Raises:
        StatusError: If the tasks do not go together, one does not fit its
            signature, there is no example, or the run fails.
    """
    feeds: list[str] = []
    fetches: set[str] = set()
    names: set[str] = set()
    for task in request.tasks:
        _check_task(servable, request, task, names)
        names.add(signature_name_of(task.model_spec))
        feed, outputs = _plan(servable, task)
        if feeds and feeds[0] != feed:
            raise invalid("Input tensor must be the same for all Signatures.")
        feeds.append(feed)
        fetches.update(outputs)
    examples = serialize_examples(request.input)
    ordered = sorted(fetches)
    arrays = servable.run(
        {feeds[0]: examples}, ordered, timeout_ms=timeout_ms, cancel=cancel
    )
    values = dict(zip(ordered, arrays, strict=True))

    response = MultiInferenceResponse()
    for task in request.tasks:
        name = signature_name_of(task.model_spec)
        signature = servable.signatures[name]
        result = response.results.add()
        result.model_spec.name = task.model_spec.name
        result.model_spec.signature_name = name
        result.model_spec.version.value = servable.version
        if task.method_name == CLASSIFY:
            filled = result.classification_result
            fill_classification(filled, signature, values, len(examples))
        else:
            filled = result.regression_result
            fill_regression(filled, signature, values, len(examples))
    return response


def _check_task(
    servable: Servable,
    request: MultiInferenceRequest,
    task: InferenceTask,
    names: set[str],
) -> None:
    if not task.model_spec.name:
        raise invalid("Found ModelSpec with an empty model name.")
    if task.model_spec.name != first_model_spec(request).name:
        raise invalid(
            "All ModelSpecs in a MultiInferenceRequest must access the same "
            "model name."
        )
    name = signature_name_of(task.model_spec)
    if name in names:
        raise invalid(f"Duplicate evaluation of signature: {name}")
    if name not in servable.signatures:
        raise invalid(f"Requested signature not found in model graph: {name}")


def _plan(servable: Servable, task: InferenceTask) -> tuple[str, list[str]]:
    if task.method_name not in _PLANS:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"Unsupported signature method_name: {task.method_name}",
        )
    signature = servable.signatures[signature_name_of(task.model_spec)]
    return _PLANS[task.method_name](signature)
