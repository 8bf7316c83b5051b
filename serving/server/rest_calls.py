"""What REST's paths and documents ask, answered from a catalog."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec

from bmt_keras.contract import SERVING_DEFAULT

from .cancel_token import CancelToken
from .catalog import Catalog
from .examples import invalid
from .json_answers import write_metadata, write_outputs, write_status
from .json_requests import Inputs, read_predict_request
from .metadata import SIGNATURE_DEF, describe_model
from .metrics import Metrics
from .predict import predict
from .rest_paths import read_path
from .servable import Servable
from .status import StatusError

TIMEOUT_SECONDS = 30


def answer_get(catalog: Catalog, path: str) -> Mapping[str, Any]:
    """Answers a GET of a model: its status, or its metadata.

    Args:
        catalog: Catalog.
        path: str, such as "/v1/models/bmt/metadata".

    Returns:
        mapping, ready for `to_json`.

    Raises:
        StatusError: If the path is none, or nothing of that name is known.
    """
    asked = read_path("GET", path)
    if asked.action:
        request = GetModelMetadataRequest(metadata_field=[SIGNATURE_DEF])
        request.model_spec.CopyFrom(asked.model_spec)
        return write_metadata(describe_model(catalog, request))
    statuses = catalog.list_statuses(asked.model_spec)
    return write_status(GetModelStatusResponse(model_version_status=statuses))


def answer_post(
    catalog: Catalog,
    metrics: Metrics,
    path: str,
    body: bytes,
    *,
    cancel: CancelToken,
) -> Mapping[str, Any]:
    """Answers a POST to a model: a prediction, which may take 30 seconds.

    Args:
        catalog: Catalog.
        metrics: Metrics, where the call is counted.
        path: str, such as "/v1/models/bmt:predict".
        body: bytes of a JSON object, as `read_predict_request` takes it.
        cancel: CancelToken that gives the run up.

    Returns:
        mapping, ready for `to_json`.

    Raises:
        StatusError: If path or document do not fit the model, or the run
            fails.
    """
    asked = read_path("POST", path)
    if asked.action != "predict":
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"Method {asked.action} is not supported over REST by this "
            "server; call it over gRPC.",
        )
    with metrics.watch(asked.model_spec.name, asked.action, "REST"):
        return _predict(catalog, asked.model_spec, body, cancel)


def _predict(
    catalog: Catalog, model_spec: ModelSpec, body: bytes, cancel: CancelToken
) -> Mapping[str, Any]:
    with ExitStack() as stack:
        models: list[Servable] = []

        # A broken document is told before an unknown model.
        def find_inputs(signature_name: str) -> Inputs:
            models.append(stack.enter_context(catalog.borrow(model_spec)))
            return _inputs_of(models[0], signature_name)

        request, in_rows = read_predict_request(body, find_inputs)
        request.model_spec.name = model_spec.name
        response = predict(
            models[0],
            request,
            timeout_ms=TIMEOUT_SECONDS * 1000,
            cancel=cancel,
        )
    return write_outputs(response.outputs, in_rows=in_rows)


def _inputs_of(servable: Servable, signature_name: str) -> Inputs:
    name = signature_name or SERVING_DEFAULT
    if name not in servable.signatures:
        raise invalid(
            f'Serving signature name: "{name}" not found in signature def'
        )
    return servable.signatures[name].inputs
