"""PredictionService and ModelService: what a server answers over gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
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


class PredictionService(PredictionServiceServicer):
    """Answers prediction calls from the versions in a catalog.

    Args:
        catalog: The versions that are served.
        metrics: Where calls are counted.
        pool: The threads in which models run.
    """

    def __init__(
        self, catalog: Catalog, metrics: Metrics, pool: RunPool
    ) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._pool = pool

    async def Predict(
        self, request: PredictRequest, context: grpc.aio.ServicerContext
    ) -> PredictResponse:
        """Runs a signature on tensors, at most until the call's deadline."""
        seconds = context.time_remaining()
        deadline = None if seconds is None else time.monotonic() + seconds

        def run() -> PredictResponse:
            with (
                self._metrics.watch(request.model_spec.name, "Predict", "GRPC"),
                self._catalog.borrow(_require_model_spec(request)) as servable,
            ):
                timeout_ms = remaining_ms(deadline)
                return predict(servable, request, timeout_ms=timeout_ms)

        async with _abort_on_error(context):
            return await self._pool.run(run)

    async def GetModelMetadata(
        self,
        request: GetModelMetadataRequest,
        context: grpc.aio.ServicerContext,
    ) -> GetModelMetadataResponse:
        """Describes a version's signatures."""
        async with _abort_on_error(context):
            self._pool.check_open()
            return describe_model(self._catalog, request)

    async def Classify(
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> None:
        """Is refused."""
        await _abort(context, unserved("Classify"))

    async def Regress(
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> None:
        """Is refused."""
        await _abort(context, unserved("Regress"))

    async def MultiInference(
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> None:
        """Is refused."""
        await _abort(context, unserved("MultiInference"))


class ModelService(ModelServiceServicer):
    """Lists the versions in a catalog and changes the models in it.

    Args:
        catalog: The versions that are served.
        models: Fills the catalog.
        pool: Says when the server is shutting down.
        loading: The thread in which models are loaded.
    """

    def __init__(
        self,
        catalog: Catalog,
        models: ServedModels,
        pool: RunPool,
        loading: Executor,
    ) -> None:
        self._catalog = catalog
        self._models = models
        self._pool = pool
        self._loading = loading

    async def GetModelStatus(
        self, request: GetModelStatusRequest, context: grpc.aio.ServicerContext
    ) -> GetModelStatusResponse:
        """Lists the state of a model's versions, the latest first."""
        async with _abort_on_error(context):
            self._pool.check_open()
            return list_versions(self._catalog, request)

    async def HandleReloadConfigRequest(
        self, request: ReloadConfigRequest, context: grpc.aio.ServicerContext
    ) -> ReloadConfigResponse:
        """Serves other models; returns once the new ones are available."""
        async with _abort_on_error(context):
            self._pool.check_open()
            return await asyncio.get_running_loop().run_in_executor(
                self._loading, _reload_config, self._models, request
            )


# === Answers ===


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
    model_spec = _require_model_spec(request)
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
    model_spec = _require_model_spec(request)
    return GetModelStatusResponse(
        model_version_status=catalog.list_statuses(model_spec)
    )


def _reload_config(
    models: ServedModels, request: ReloadConfigRequest
) -> ReloadConfigResponse:
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


# === Failures ===


@asynccontextmanager
async def _abort_on_error(
    context: grpc.aio.ServicerContext,
) -> AsyncIterator[None]:
    try:
        yield
    except StatusError as error:
        await _abort(context, error)


async def _abort(context: grpc.aio.ServicerContext, error: StatusError) -> None:
    await context.abort(error.code, error.wire_message)
