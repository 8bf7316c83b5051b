"""What a server tells of a model: its signatures."""

from typing import Any

import grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

from .catalog import Catalog
from .status import StatusError

SIGNATURE_DEF = "signature_def"


def require_model_spec(request: Any) -> ModelSpec:
    """Returns a request's model_spec.

    Raises:
        StatusError: If the request has none.
    """
    if not request.HasField("model_spec"):
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    return request.model_spec


def describe_model(
    catalog: Catalog, request: GetModelMetadataRequest
) -> GetModelMetadataResponse:
    """Answers a GetModelMetadata request.

    Args:
        catalog: Catalog.
        request: GetModelMetadataRequest; "signature_def" is the one field
            that can be asked for.

    Returns:
        GetModelMetadataResponse with a packed SignatureDefMap.

    Raises:
        StatusError: If no field or another one is asked for, or the model is
            not available.
    """
    model_spec = require_model_spec(request)
    _check_fields(request)
    response = GetModelMetadataResponse()
    with catalog.borrow(model_spec) as servable:
        response.model_spec.name = model_spec.name
        response.model_spec.version.value = servable.version
        response.metadata[SIGNATURE_DEF].Pack(
            SignatureDefMap(signature_def=servable.signatures)
        )
    return response


def _check_fields(request: GetModelMetadataRequest) -> None:
    if not request.metadata_field:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "GetModelMetadataRequest must specify at least one metadata_field",
        )
    for field in request.metadata_field:
        if field != SIGNATURE_DEF:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Metadata field {field} is not supported",
            )
