"""ModelService: the state of served models, and their change, over gRPC."""

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorflow_serving.apis.model_management_pb2 import (
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceServicer

from .catalog import Catalog
from .metadata import require_model_spec
from .served_models import ServedModels
from .status import StatusError, abort_on_error


class ModelService(ModelServiceServicer):
    """Tells the versions in a catalog and changes the models in it.

    Args:
        catalog: Catalog.
        models: ServedModels that fill the catalog.
    """

    def __init__(self, catalog: Catalog, models: ServedModels) -> None:
        self._catalog = catalog
        self._models = models

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
        self, request: ReloadConfigRequest, context: grpc.ServicerContext
    ) -> ReloadConfigResponse:
        """Serves other models; returns once the new ones are available."""
        with abort_on_error(context):
            if request.config.WhichOneof("config") != "model_config_list":
                raise StatusError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "ServerModelConfig type not supported by "
                    "HandleReloadConfigRequest. Only ModelConfigList is "
                    "currently supported",
                )
            missing = self._models.configure(request.config.model_config_list)
            if missing:
                told = ", ".join(
                    f"{{{name} due to error: {why}}}"
                    for name, why in missing.items()
                )
                raise StatusError(
                    grpc.StatusCode.UNKNOWN,
                    f"{len(missing)} model(s) did not become available: "
                    f"{{{told}}}",
                )
            response = ReloadConfigResponse()
            # Present though empty: no error.
            response.status.SetInParent()
            return response
