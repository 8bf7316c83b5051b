"""The gRPC port: services, health, reflection, limits and TLS."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2
from tensorflow_serving.apis.model_service_pb2_grpc import (
    add_ModelServiceServicer_to_server,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    add_PredictionServiceServicer_to_server,
)

from ..errors import ServingError
from .addresses import listen, write_address
from .services import ModelService, PredictionService

_HEALTH_SERVICES = ("", "PredictionService", "ModelService")
_REFLECTED = (
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"],
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
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

    Args:
        prediction_service: Answers predictions.
        model_service: Answers questions about the models.
        max_message_bytes: The largest request; -1 for no limit. Larger ones
            end as RESOURCE_EXHAUSTED.
    """

    def __init__(
        self,
        prediction_service: PredictionService,
        model_service: ModelService,
        *,
        max_message_bytes: int,
    ) -> None:
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", max_message_bytes),
                # Else two servers could share a port, each with a part of the
                # calls.
                ("grpc.so_reuseport", 0),
            )
        )
        self._health = health.aio.HealthServicer()
        add_PredictionServiceServicer_to_server(
            prediction_service, self._server
        )
        add_ModelServiceServicer_to_server(model_service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.full_name for service in _REFLECTED]
        reflection.enable_server_reflection(
            (*names, reflection.SERVICE_NAME), self._server
        )

    async def open(self, host: str, port: int, tls: TlsFiles | None) -> int:
        """Answers calls at an address.

        Args:
            host: The address.
            port: 0 picks a free one.
            tls: The server's certificates; None for no encryption.

        Returns:
            The port.

        Raises:
            ServingError: If the address or a TLS file cannot be used.
        """
        address = write_address(host, port)
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(
                    address, _make_credentials(tls)
                )
        except RuntimeError as error:
            # gRPC keeps the reason to its log; a plain socket says it.
            listen(host, port).close()
            raise ServingError(
                f"A server needs an address of its own. gRPC cannot bind "
                f"{address}; its log says why."
            ) from error
        for service in _HEALTH_SERVICES:
            await self._health.set(
                service, health_pb2.HealthCheckResponse.SERVING
            )
        await self._server.start()
        return port

    async def announce_end(self) -> None:
        """Answers health checks with NOT_SERVING from now on."""
        await self._health.enter_graceful_shutdown()

    async def close(self, grace: float | None) -> None:
        """Closes the port.

        Args:
            grace: Seconds that calls in flight may still take; beyond them
                they end UNAVAILABLE. None gives them up at once.
        """
        await self._server.stop(grace)


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
