"""The gRPC port: limits, services, health, reflection and TLS."""

import socket

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
from .call_gate import CallGate
from .model_service import ModelService
from .prediction_service import PredictionService
from .tls import TlsFiles, make_server_credentials

_HEALTH_SERVICES = ("", "PredictionService", "ModelService")
_REFLECTED = (
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"],
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
)


def make_grpc_server(
    gate: CallGate,
    *,
    max_concurrent_calls: int | None,
    max_message_bytes: int,
) -> grpc.Server:
    """Makes a server that refuses calls over its limits.

    Args:
        gate: CallGate that lets calls in.
        max_concurrent_calls: int, or None for no limit.
        max_message_bytes: int. The largest request; -1 for no limit.

    Returns:
        grpc.Server without services and ports; calls over a limit end as
        RESOURCE_EXHAUSTED.
    """
    options = (
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Else two servers could share a port, each with a part of the calls.
        ("grpc.so_reuseport", 0),
    )
    return grpc.server(
        gate.workers,
        interceptors=[gate],
        options=options,
        maximum_concurrent_rpcs=max_concurrent_calls,
    )


def add_services(
    server: grpc.Server,
    prediction_service: PredictionService,
    model_service: ModelService,
    health_service: health.HealthServicer,
) -> None:
    """Adds the services, each healthy, and their reflection."""
    add_PredictionServiceServicer_to_server(prediction_service, server)
    add_ModelServiceServicer_to_server(model_service, server)
    for service in _HEALTH_SERVICES:
        health_service.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    names = [service.full_name for service in _REFLECTED]
    reflection.enable_server_reflection(
        (*names, reflection.SERVICE_NAME), server
    )


def bind(
    server: grpc.Server, host: str, port: int, *, tls: TlsFiles | None
) -> int:
    """Gives a server its address.

    Args:
        server: grpc.Server.
        host: str.
        port: int. 0 picks a free one.
        tls: TlsFiles; None for no encryption.

    Returns:
        int, the port.

    Raises:
        ServingError: If the address or a TLS file cannot be used.
    """
    address = _write_address(host, port)
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, make_server_credentials(tls))
    except RuntimeError as error:
        raise bind_error(host, port, _explain_bind(host, port)) from error


def bind_error(host: str, port: int, reason: str) -> ServingError:
    """Returns the error of an address that cannot be listened at."""
    return ServingError(
        f"A server needs an address of its own. Cannot listen at "
        f"{_write_address(host, port)}: {reason}. Stop what listens there, or "
        "choose another host or port."
    )


def _write_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _explain_bind(host: str, port: int) -> str:
    # gRPC keeps the reason to its log; the plain socket tells it.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        # Python appends the address in parentheses.
        return (error.strerror or str(error)).partition(" (while")[0]
    return "gRPC cannot bind it"
