"""PredictionService and ModelService: what a server answers over gRPC."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import grpc
from grpc.aio import ServicerContext
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
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceServicer
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
)

from .catalog import Catalog
from .metrics import Metrics
from .predict import predict
from .run_pool import RunPool, remaining_ms
from .served_models import ServedModels
from .status import StatusError, invalid

SIGNATURE_DEF = "signature_def"

Method = Callable[[Any, Any, ServicerContext], Awaitable[Any]]


def _abort_on_error(method: Method) -> Method:
    @functools.wraps(method)
    async def answer(self: Any, request: Any, context: ServicerContext) -> Any:
        try:
            return await method(self, request, context)
        except StatusError as error:
            await context.abort(error.code, error.wire_message)

    return answer


def _refuse(name: str) -> Method:
    @_abort_on_error
    async def refuse(self: Any, request: Any, context: ServicerContext) -> None:
        raise unserved(name)

    return refuse


@dataclass
class PredictionService(PredictionServiceServicer):
    """Answers prediction calls from the versions in a catalog."""

    catalog: Catalog
    metrics: Metrics
    pool: RunPool

    @_abort_on_error
    async def Predict(
        self, request: PredictRequest, context: ServicerContext
    ) -> PredictResponse:
        """Runs a signature on tensors, at most until the call's deadline."""
        seconds = context.time_remaining()
        deadline = None if seconds is None else time.monotonic() + seconds

        def run() -> PredictResponse:
            # In a thread: parsing tensors holds up no other call.
            with (
                self.metrics.watch(request.model_spec.name, "Predict", "GRPC"),
                self.catalog.borrow(_require_model_spec(request)) as servable,
            ):
                timeout_ms = remaining_ms(deadline)
                return predict(servable, request, timeout_ms=timeout_ms)

        return await self.pool.run(run)

    @_abort_on_error
    async def GetModelMetadata(
        self, request: GetModelMetadataRequest, context: ServicerContext
    ) -> GetModelMetadataResponse:
        """Describes a version's signatures."""
        self.pool.check_open()
        model_spec = _require_model_spec(request)
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one "
                "metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        response = GetModelMetadataResponse()
        with self.catalog.borrow(model_spec) as servable:
            response.model_spec.name = model_spec.name
            response.model_spec.version.value = servable.version
            response.metadata[SIGNATURE_DEF].Pack(
                SignatureDefMap(signature_def=servable.signatures)
            )
        return response

    Classify = _refuse("Classify")
    Regress = _refuse("Regress")
    MultiInference = _refuse("MultiInference")


@dataclass
class ModelService(ModelServiceServicer):
    """Lists the versions in a catalog and changes the models in it."""

    catalog: Catalog
    models: ServedModels
    # Says when the server is shutting down.
    pool: RunPool
    # The one thread in which models are loaded.
    loading: Executor

    @_abort_on_error
    async def GetModelStatus(
        self, request: GetModelStatusRequest, context: ServicerContext
    ) -> GetModelStatusResponse:
        """Lists the state of a model's versions, the latest first."""
        self.pool.check_open()
        statuses = self.catalog.list_statuses(_require_model_spec(request))
        return GetModelStatusResponse(model_version_status=statuses)

    @_abort_on_error
    async def HandleReloadConfigRequest(
        self, request: ReloadConfigRequest, context: ServicerContext
    ) -> ReloadConfigResponse:
        """Serves other models; returns once the new ones are available."""
        self.pool.check_open()
        # A custom config, too, is refused, as TensorFlow Serving does.
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by "
                "HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        missing = await asyncio.get_running_loop().run_in_executor(
            self.loading,
            self.models.configure,
            request.config.model_config_list,
        )
        if missing:
            reasons = ", ".join(
                f"{{{name} due to error: {why}}}"
                for name, why in missing.items()
            )
            raise StatusError(
                grpc.StatusCode.UNKNOWN,
                f"{len(missing)} model(s) did not become available: "
                f"{{{reasons}}}",
            )
        response = ReloadConfigResponse()
        # Present though empty: no error.
        response.status.SetInParent()
        return response


def unserved(method: str) -> StatusError:
    """Returns the error of a method that TensorFlow Serving alone answers."""
    return StatusError(
        grpc.StatusCode.UNIMPLEMENTED,
        f"This server answers Predict alone; {method} is served by TensorFlow "
        "Serving, which takes the same model folder.",
    )


def _require_model_spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec
