"""ModelService: the state of served models over gRPC."""

from typing import Any

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceServicer

from .catalog import Catalog
from .prediction_service import require_model_spec
from .status import StatusError, abort_on_error


class ModelService(ModelServiceServicer):
    """Answers status calls from the versions in a catalog.

    Args:
        catalog: Catalog.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def GetModelStatus(
        self, request: GetModelStatusRequest, context: grpc.ServicerContext
    ) -> GetModelStatusResponse:
        """Lists the state of a model's versions, the latest first."""
        with abort_on_error(context):
            model_spec = require_model_spec(request)
            return GetModelStatusResponse(
                model_version_status=self._catalog.list_statuses(model_spec)
            )

    def HandleReloadConfigRequest(
        self, request: Any, context: grpc.ServicerContext
    ) -> None:
        """Answers that the call is not supported."""
        with abort_on_error(context):
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED,
                "HandleReloadConfigRequest is not supported by this server; "
                "restart it with other models instead.",
            )
