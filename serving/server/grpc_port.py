"""The gRPC port: services, health, reflection, limits and TLS."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis.model_service_pb2_grpc import (
    add_ModelServiceServicer_to_server,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    add_PredictionServiceServicer_to_server,
)

from ..errors import ServingError
from .services import ModelService, PredictionService

_HEALTH_SERVICES = ("", "PredictionService", "ModelService")
_REFLECTED = (
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    health.SERVICE_NAME,
    reflection.SERVICE_NAME,
)


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


class GrpcPort:
    """Answers gRPC calls on the event loop that makes it.

    A call's message is received by the loop: a slow upload holds no thread.
    """

    def __init__(
        self,
        prediction_service: PredictionService,
        model_service: ModelService,
        *,
        max_message_bytes: int,
    ) -> None:
        self._server = server = grpc.aio.server(
            options=(
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", max_message_bytes),
                # Else two servers could share a port, each with a part of the
                # calls.
                ("grpc.so_reuseport", 0),
            )
        )
        self._health = health.aio.HealthServicer()
        add_PredictionServiceServicer_to_server(prediction_service, server)
        add_ModelServiceServicer_to_server(model_service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(_REFLECTED, server)

    async def open(self, host: str, port: int, tls: TlsFiles | None) -> int:
        """Answers calls at an address; returns the port."""
        address = _write_address(host, port)
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                credentials = _make_credentials(tls)
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            # gRPC keeps the reason to its log; a plain socket says it.
            listen(host, port).close()
            raise ServingError(
                f"A server needs an address of its own. gRPC cannot bind "
                f"{address}; its log says why."
            ) from error
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in _HEALTH_SERVICES:
            await self._health.set(service, serving)
        await self._server.start()
        return port

    async def announce_end(self) -> None:
        """Answers health checks with NOT_SERVING from now on."""
        await self._health.enter_graceful_shutdown()

    async def close(self, grace: float | None) -> None:
        """Closes the port; calls may still take some seconds, if not None."""
        await self._server.stop(grace)


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


def _make_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # gRPC would report bad files only in its log.
        context.load_cert_chain(files.certificate, files.key)
        client_ca = None
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            client_ca = files.client_ca.read_bytes()
        return grpc.ssl_server_credentials(
            [(files.key.read_bytes(), files.certificate.read_bytes())],
            root_certificates=client_ca,
            require_client_auth=client_ca is not None,
        )
    except OSError as error:
        raise ServingError(
            "TLS needs a key and its certificate as PEM files, and for mutual "
            "TLS the clients' authority as one. Cannot use "
            f"{files.key}, {files.certificate}"
            f"{'' if files.client_ca is None else f', {files.client_ca}'}: "
            f"{error}."
        ) from error
