"""The embedded server: models served over gRPC and REST from this process."""

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health
from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList

from bmt_keras.contract import GRPC_PORT, MODEL_NAME

from ..errors import ServingError
from .call_gate import CallGate
from .catalog import Catalog
from .grpc_port import add_services, bind, bind_error, make_grpc_server
from .metrics import Metrics
from .model_config import make_model_config
from .model_service import ModelService
from .prediction_service import PredictionService
from .rest import RestServer
from .served_models import ServedModels
from .status import StatusError
from .tls import TlsFiles

_logger = logging.getLogger(__name__)


class EmbeddedServer:
    """Serves SavedModels as TensorFlow Serving would.

    PredictionService, ModelService, health and reflection over gRPC, and on a
    second port REST and Prometheus' metrics, answer with TensorFlow Serving's
    codes and messages, so that its clients need no change. The ports open only
    once every model is loaded and warm. Then the base paths are watched: a new
    version is loaded and warmed up before the old one ends, and one that fails
    leaves the old one serving.

    Args:
        models: str or Path of the folder of one model's numbered versions, of
            which the latest is served, or ModelConfigList.
        model_name: str. The name that requests give, where `models` is a
            folder.
        host: str. The address to listen at; "0.0.0.0" for every one.
        port: int. gRPC's port; 0 picks a free one.
        rest_port: int. REST's port; None for no REST.
        max_workers: int. The number of gRPC calls answered at a time; more
            wait.
        max_concurrent_calls: int. Calls beyond this, answered or waiting, are
            refused as RESOURCE_EXHAUSTED; None for no limit.
        max_message_bytes: int. Larger requests are refused as
            RESOURCE_EXHAUSTED; -1 for no limit.
        poll_seconds: float. Time between looks for new versions; 0 for none.
        tls: TlsFiles for the gRPC port; None for no encryption.

    Example:
        ```python
        with EmbeddedServer("models/bmt", port=0) as server:
            client = CaptionClient(f"127.0.0.1:{server.port}")
        ```
    """

    def __init__(
        self,
        models: str | Path | ModelConfigList,
        model_name: str = MODEL_NAME,
        *,
        host: str = "127.0.0.1",
        port: int = GRPC_PORT,
        rest_port: int | None = None,
        max_workers: int = 16,
        max_concurrent_calls: int | None = None,
        max_message_bytes: int = -1,
        poll_seconds: float = 1.0,
        tls: TlsFiles | None = None,
    ) -> None:
        if not isinstance(models, ModelConfigList):
            models = make_model_config(model_name, Path(models))
        self.models = models
        self.host = host
        self.port = port
        self.rest_port = rest_port
        self.max_workers = max_workers
        self.max_concurrent_calls = max_concurrent_calls
        self.max_message_bytes = max_message_bytes
        self.poll_seconds = poll_seconds
        self.tls = tls
        self.metrics = Metrics()
        self._catalog = Catalog()
        self._served = ServedModels(self._catalog)
        self._health = health.HealthServicer()
        self._stopping = threading.Event()
        self._gate = CallGate(max_workers)
        self._server: grpc.Server | None = None
        self._rest: RestServer | None = None

    @property
    def versions(self) -> Mapping[str, list[int]]:
        """Versions that answer requests, by model name."""
        names = self._catalog.model_names()
        return {name: self._catalog.available(name) for name in names}

    def start(self) -> None:
        """Loads the models, then opens the ports.

        Afterwards `port`, `rest_port` and `versions` tell what is served
        where. A server starts once.

        Raises:
            ServingError: If a model has no version that loads and warms up,
                an address or a TLS file cannot be used, or the server was
                started before.
        """
        if self._stopping.is_set() or self._server is not None:
            raise ServingError("A server starts once; make a new one.")
        try:
            self._load()
            self._server, self.port = self._listen()
            self._rest = self._listen_for_rest()
        except ServingError:
            self._close()
            raise
        self._server.start()
        self._start_threads()

    def stop(self, grace: float | None = None) -> None:
        """Lets calls in flight end, closes the ports, frees the models.

        Calls that come after this one end UNAVAILABLE, over REST as refused
        connections; health checks are told NOT_SERVING meanwhile.

        Args:
            grace: float. Seconds that calls in flight may still take; beyond
                them they end UNAVAILABLE. None gives them up at once.
        """
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        if self._server is not None:
            if grace is not None:
                end = time.monotonic() + grace
                self._gate.close()
                if self._rest is not None:
                    self._rest.drain(grace)
                self._gate.wait_until_empty(end - time.monotonic())
                grace = max(0.0, end - time.monotonic())
            self._server.stop(grace).wait()
        self._close()

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

    # === Start and end ===

    def _load(self) -> None:
        try:
            missing = self._served.configure(self.models)
        except StatusError as error:
            raise ServingError(error.message) from error
        if missing:
            raise ServingError(" ".join(missing.values()))

    def _start_threads(self) -> None:
        if self._rest is not None:
            self._rest.start()
        if self.poll_seconds > 0:
            threading.Thread(
                target=self._watch, name="versions", daemon=True
            ).start()

    def _watch(self) -> None:
        while not self._stopping.wait(self.poll_seconds):
            try:
                self._served.look_again()
            # Whatever goes wrong with a look, what is served goes on.
            except Exception:
                _logger.exception("Cannot look for new versions")

    def _listen(self) -> tuple[grpc.Server, int]:
        server = make_grpc_server(
            self._gate,
            max_concurrent_calls=self.max_concurrent_calls,
            max_message_bytes=self.max_message_bytes,
        )
        add_services(
            server,
            PredictionService(self._catalog, self.metrics),
            ModelService(self._catalog, self._served),
            self._health,
        )
        return server, bind(server, self.host, self.port, tls=self.tls)

    def _listen_for_rest(self) -> RestServer | None:
        if self.rest_port is None:
            return None
        address = (self.host, self.rest_port)
        try:
            rest = RestServer(
                address,
                self._catalog,
                self.metrics,
                max_message_bytes=self.max_message_bytes,
                max_concurrent_calls=self.max_concurrent_calls,
            )
        except OSError as error:
            raise bind_error(*address, error.strerror or str(error)) from error
        self.rest_port = rest.server_port
        return rest

    def _close(self) -> None:
        self._stopping.set()
        if self._rest is not None:
            self._rest.close()
        self._gate.shut_down()
        self._server = self._rest = None
        self._catalog.close()
