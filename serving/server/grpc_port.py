"""The gRPC port: services, health, reflection, limits and TLS."""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc.aio import ServicerContext
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
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
from tensorflow_serving.apis.model_service_pb2_grpc import (
    ModelServiceServicer,
    add_ModelServiceServicer_to_server,
)
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from tensorflow_serving.apis.status_pb2 import StatusProto

from ..errors import ServingError
from .metrics import Metrics
from .predict import predict
from .run_pool import Limits, RunPool
from .served_models import ServedModels
from .status import StatusError, invalid, to_status

SIGNATURE_DEF = "signature_def"
_ANY_NUMBER = 2**31 - 1
_REFLECTED = (
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    health.SERVICE_NAME,
    reflection.SERVICE_NAME,
)


class _Statuses(grpc.aio.ServerInterceptor):
    """Parses requests; whatever fails ends a call with the contract's code."""

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        parse, method = handler.request_deserializer, handler.unary_unary

        async def answer(message: bytes, context: ServicerContext) -> Any:
            try:
                return await method(parse(message), context)
            # gRPC's generated class raises it for what is not served.
            except NotImplementedError:
                status = unserved(details.method.rpartition("/")[2])
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                status = to_status(error)
            await context.abort(status.code, status.wire_message)

        return grpc.unary_unary_rpc_method_handler(
            answer, None, handler.response_serializer
        )


@dataclass
class GrpcPort(PredictionServiceServicer, ModelServiceServicer):
    """Answers gRPC calls on the event loop that opens it.

    A call's message is received by the loop: a slow upload holds no thread.
    """

    models: ServedModels
    metrics: Metrics
    pool: RunPool
    max_message_bytes: int

    async def open(
        self, host: str, port: int, credentials: grpc.ServerCredentials | None
    ) -> int:
        """Answers calls at an address; returns the port."""
        options = (
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            # Else two servers could share a port, each with a part of the
            # calls.
            ("grpc.so_reuseport", 0),
            # By default gRPC cancels some of more than 1,000 new calls that it
            # has not yet handed over, and no client tries those again.
            ("grpc.server.max_pending_requests", _ANY_NUMBER),
            ("grpc.server.max_pending_requests_hard_limit", _ANY_NUMBER),
        )
        self._server = server = grpc.aio.server(
            options=options, interceptors=[_Statuses()]
        )
        self._health = health.aio.HealthServicer()
        add_PredictionServiceServicer_to_server(self, server)
        add_ModelServiceServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(_REFLECTED, server)
        address = _write_address(host, port)
        try:
            if credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ServingError(f"{error}.") from error
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ("", "PredictionService", "ModelService"):
            await self._health.set(service, serving)
        await server.start()
        return port

    async def announce_end(self) -> None:
        """Answers health checks with NOT_SERVING from now on."""
        await self._health.enter_graceful_shutdown()

    async def close(self, grace: float | None) -> None:
        """Closes the port; calls may still take some seconds, if not None."""
        await self._server.stop(grace)

    # === PredictionService ===

    async def Predict(
        self, request: PredictRequest, context: ServicerContext
    ) -> PredictResponse:
        """Runs a signature on tensors, at most until the call's deadline."""
        seconds = context.time_remaining()
        limits = Limits(self.max_message_bytes)
        if seconds is not None:
            limits.deadline = time.monotonic() + seconds

        def run() -> PredictResponse:
            # In a thread: parsing tensors holds up no other call.
            with (
                self.metrics.watch(request.model_spec.name, "Predict", "GRPC"),
                self.models.borrow(_require_model_spec(request)) as servable,
            ):
                return predict(servable, request, limits)

        return await self.pool.run(run, limits)

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
        with self.models.borrow(model_spec) as servable:
            response.model_spec.name = model_spec.name
            response.model_spec.version.value = servable.version
            response.metadata[SIGNATURE_DEF].Pack(
                SignatureDefMap(signature_def=servable.signatures)
            )
        return response

    # === ModelService ===

    async def GetModelStatus(
        self, request: GetModelStatusRequest, context: ServicerContext
    ) -> GetModelStatusResponse:
        """Lists the state of a model's versions, the latest first."""
        self.pool.check_open()
        statuses = self.models.list_statuses(_require_model_spec(request))
        return GetModelStatusResponse(model_version_status=statuses)

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
        await asyncio.to_thread(
            self.models.configure, request.config.model_config_list
        )
        # Present though empty: no error.
        return ReloadConfigResponse(status=StatusProto())


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


# === Addresses and TLS ===


@dataclass(frozen=True)
class TlsFiles:
    """PEM files by which a server proves who it is.

    Args:
        key: The server's private key.
        certificate: The server's certificate, with its chain.
        client_ca: The authority that signs clients' certificates. With it, a
            client without one is refused (mutual TLS).
    """

    key: Path
    certificate: Path
    client_ca: Path | None = None


def listen(host: str, port: int) -> socket.socket:
    """Opens a socket at an address; port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        # Python appends the address in parentheses.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ServingError(
            "A server needs an address of its own. Cannot listen at "
            f"{_write_address(host, port)}: {reason}. Stop what listens there, "
            "or choose another host or port."
        ) from error


def _write_address(host: str, port: int) -> str:
    # An address of IPv6 is written in brackets.
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def make_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Reads a server's TLS files; a ServingError says what is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # gRPC would report bad files only in its log.
        context.load_cert_chain(files.certificate, files.key)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
        client_ca = files.client_ca.read_bytes() if files.client_ca else None
        return grpc.ssl_server_credentials(
            [(files.key.read_bytes(), files.certificate.read_bytes())],
            root_certificates=client_ca,
            require_client_auth=client_ca is not None,
        )
    except OSError as error:
        raise ServingError(
            "TLS needs a key and its certificate as PEM files, and for mutual "
            "TLS the clients' authority as one. Cannot use "
            f"{', '.join(str(path) for path in vars(files).values() if path)}: "
            f"{error}."
        ) from error
