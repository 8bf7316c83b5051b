"""The embedded server: a model served over gRPC from this process."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis.model_service_pb2_grpc import (
    add_ModelServiceServicer_to_server,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    add_PredictionServiceServicer_to_server,
)

from bmt_keras.contract import GRPC_PORT, MODEL_NAME

from .catalog import Catalog
from .errors import ServingError
from .model_service import ModelService
from .prediction_service import PredictionService
from .servable import Servable
from .version_folders import find_version_folders
from .warmup import warm_up

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Else two servers could share a port, each with a part of the calls.
    ("grpc.so_reuseport", 0),
)
_HEALTH_SERVICES = ("", "PredictionService", "ModelService")


class EmbeddedServer:
    """Serves the latest version of a model as TensorFlow Serving would.

    PredictionService (Predict, GetModelMetadata), ModelService
    (GetModelStatus) and the gRPC health service answer with TensorFlow
    Serving's codes and messages, so that its clients need no change. The port
    opens only once the model is loaded and warm.

    Args:
        base_path: str or Path. Folder of the model's numbered versions.
        model_name: str. The name that requests give.
        host: str. The address to listen at; "0.0.0.0" for every one.
        port: int. 0 picks a free port.
        max_workers: int. The number of calls answered at a time.

    Example:
        ```python
        with EmbeddedServer("models/bmt", port=0) as server:
            client = CaptionClient(f"127.0.0.1:{server.port}")
        ```
    """

    def __init__(
        self,
        base_path: str | Path,
        model_name: str = MODEL_NAME,
        *,
        host: str = "127.0.0.1",
        port: int = GRPC_PORT,
        max_workers: int = 16,
    ) -> None:
        self.base_path = Path(base_path)
        self.model_name = model_name
        self.host = host
        self.port = port
        self.max_workers = max_workers
        self.version: int | None = None
        self._catalog = Catalog()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Loads the model, then opens the port.

        Afterwards `port` and `version` tell what is served where.

        Raises:
            ServingError: If there is no version, it cannot be loaded, its
                warm-up fails, or the address cannot be used.
        """
        self._load_latest()
        try:
            self._server, self.port = self._listen()
        except ServingError:
            self._catalog.close()
            raise
        self._server.start()

    def stop(self, grace: float | None = None) -> None:
        """Closes the port, lets calls in flight end, frees the model.

        Args:
            grace: float. Seconds that calls in flight may still take; None
                gives them up at once.
        """
        if self._server is not None:
            self._server.stop(grace).wait()
            self._server = None
        self._catalog.close()

    def wait(self, timeout: float | None = None) -> None:
        """Waits until the server is stopped.

        Args:
            timeout: float. The longest wait in seconds; None for no limit.
        """
        if self._server is not None:
            self._server.wait_for_termination(timeout)

    def __enter__(self) -> Self:
        """Starts the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops the server."""
        self.stop()

    def _load_latest(self) -> None:
        folder = find_version_folders(self.base_path)[-1]
        servable = Servable(folder)
        try:
            warm_up(servable, folder)
        except ServingError:
            servable.close()
            raise
        self._catalog.add(self.model_name, servable)
        self.version = servable.version

    def _listen(self) -> tuple[grpc.Server, int]:
        workers = ThreadPoolExecutor(
            self.max_workers, thread_name_prefix="serving"
        )
        server = grpc.server(workers, options=_OPTIONS)
        add_PredictionServiceServicer_to_server(
            PredictionService(self._catalog), server
        )
        add_ModelServiceServicer_to_server(ModelService(self._catalog), server)
        health_pb2_grpc.add_HealthServicer_to_server(_make_health(), server)
        try:
            port = server.add_insecure_port(_address(self.host, self.port))
        except RuntimeError as error:
            raise ServingError(
                f"A server needs an address of its own. Cannot listen at "
                f"{_address(self.host, self.port)}: "
                f"{_explain_bind(self.host, self.port)}. Stop what listens "
                "there, or choose another host or port."
            ) from error
        return server, port


def _make_health() -> health.HealthServicer:
    servicer = health.HealthServicer()
    for service in _HEALTH_SERVICES:
        servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    return servicer


def _address(host: str, port: int) -> str:
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
