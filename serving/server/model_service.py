"""What a server says of its models, and their change."""

from typing import Any

import grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorflow_serving.apis.model_management_pb2 import (
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

from .catalog import Catalog
from .served_models import ServedModels
from .status import StatusError, invalid

SIGNATURE_DEF = "signature_def"


def require_model_spec(request: Any) -> ModelSpec:
    """Returns a request's model_spec.

    Raises:
        StatusError: If the request has none.
    """
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def describe_model(
    catalog: Catalog, request: GetModelMetadataRequest
) -> GetModelMetadataResponse:
    """Answers a GetModelMetadata request.

    Args:
        catalog: The versions that are served.
        request: "signature_def" is the one field that can be asked for.

    Returns:
        The signatures, as a packed SignatureDefMap.

    Raises:
        StatusError: If no field or another one is asked for, or the model is
            not available.
    """
    model_spec = require_model_spec(request)
    if not request.metadata_field:
        raise invalid(
            "GetModelMetadataRequest must specify at least one metadata_field"
        )
    for field in request.metadata_field:
        if field != SIGNATURE_DEF:
            raise invalid(f"Metadata field {field} is not supported")
    response = GetModelMetadataResponse()
    with catalog.borrow(model_spec) as servable:
        response.model_spec.name = model_spec.name
        response.model_spec.version.value = servable.version
        response.metadata[SIGNATURE_DEF].Pack(
            SignatureDefMap(signature_def=servable.signatures)
        )
    return response


def list_versions(
    catalog: Catalog, request: GetModelStatusRequest
) -> GetModelStatusResponse:
    """Answers a GetModelStatus request: the versions, the latest first.

    Raises:
        StatusError: If nothing of that name or version is known.
    """
    model_spec = require_model_spec(request)
    return GetModelStatusResponse(
        model_version_status=catalog.list_statuses(model_spec)
    )


def reload_config(
    models: ServedModels, request: ReloadConfigRequest
) -> ReloadConfigResponse:
    """Answers a HandleReloadConfigRequest, once the new models are available.

    Raises:
        StatusError: If the configuration cannot be accepted, or a new model
            did not become available.
    """
    if request.config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by "
            "HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported"
        )
    missing = models.configure(request.config.model_config_list)
    if missing:
        reasons = ", ".join(
            f"{{{name} due to error: {why}}}" for name, why in missing.items()
        )
        raise StatusError(
            grpc.StatusCode.UNKNOWN,
            f"{len(missing)} model(s) did not become available: {{{reasons}}}",
        )
    response = ReloadConfigResponse()
    # Present though empty: no error.
    response.status.SetInParent()
    return response
