"""PredictionService: Predict and GetModelMetadata over gRPC."""

from typing import Any

import grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
)

from .catalog import Catalog
from .predict import predict
from .status import StatusError, abort_on_error

_SIGNATURE_DEF = "signature_def"
_LONGEST_TIMEOUT_MS = 2**31 - 1


class PredictionService(PredictionServiceServicer):
    """Answers prediction calls from the versions in a catalog.

    Args:
        catalog: Catalog.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def Predict(
        self, request: PredictRequest, context: grpc.ServicerContext
    ) -> PredictResponse:
        """Runs a signature; the call's deadline bounds the run."""
        with abort_on_error(context):
            servable = self._catalog.find(require_model_spec(request))
            return predict(servable, request, timeout_ms=_timeout_ms(context))

    def GetModelMetadata(
        self, request: GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> GetModelMetadataResponse:
        """Describes a version's signatures."""
        with abort_on_error(context):
            model_spec = require_model_spec(request)
            _check_metadata_fields(request)
            servable = self._catalog.find(model_spec)
            response = GetModelMetadataResponse()
            response.model_spec.name = model_spec.name
            response.model_spec.version.value = servable.version
            response.metadata[_SIGNATURE_DEF].Pack(
                SignatureDefMap(signature_def=servable.signatures)
            )
            return response

    def Classify(self, request: Any, context: grpc.ServicerContext) -> None:
        """Answers that the call is not supported."""
        _refuse("Classify", context)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> None:
        """Answers that the call is not supported."""
        _refuse("Regress", context)

    def MultiInference(
        self, request: Any, context: grpc.ServicerContext
    ) -> None:
        """Answers that the call is not supported."""
        _refuse("MultiInference", context)


def require_model_spec(request: Any) -> ModelSpec:
    """Returns a request's model_spec.

    Raises:
        StatusError: If the request has none.
    """
    if not request.HasField("model_spec"):
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    return request.model_spec


def _check_metadata_fields(request: GetModelMetadataRequest) -> None:
    if not request.metadata_field:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "GetModelMetadataRequest must specify at least one metadata_field",
        )
    for field in request.metadata_field:
        if field != _SIGNATURE_DEF:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Metadata field {field} is not supported",
            )


def _timeout_ms(context: grpc.ServicerContext) -> int | None:
    seconds = context.time_remaining()
    if seconds is None:
        return None
    # At least 1: to a session, 0 means no limit.
    return int(max(1, min(seconds * 1000, _LONGEST_TIMEOUT_MS)))


def _refuse(method: str, context: grpc.ServicerContext) -> None:
    with abort_on_error(context):
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"{method} is not supported by this server; call Predict instead.",
        )
