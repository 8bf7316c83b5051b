"""The embedded server: models served over gRPC and REST from this process."""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList

from bmt_keras.contract import GRPC_PORT, MODEL_NAME

from ..errors import ServingError
from .catalog import Catalog
from .grpc_port import GrpcPort, TlsFiles
from .metrics import Metrics
from .model_config import make_model_config
from .run_pool import RunPool
from .served_models import ServedModels
from .services import ModelService, PredictionService
from .status import StatusError

if TYPE_CHECKING:
    from .rest import RestPort

_LOGGER = logging.getLogger(__name__)


class EmbeddedServer:
    """Serves SavedModels as TensorFlow Serving would.

    PredictionService (Predict and GetModelMetadata), ModelService, health and
    reflection over gRPC, and on a second port REST and Prometheus' metrics,
    answer with TensorFlow Serving's codes and messages, so that its clients
    need no change. The ports open only once every model is loaded and warm.
    Then the base paths are watched: a new version is loaded and warmed up
    before the old one ends, and one that fails leaves the old one serving.

    Args:
        models: Folder of one model's numbered versions, of which the latest is
            served, or the models of a `models.config`.
        model_name: The name that requests give, where `models` is a folder.
        host: The address to listen at; "0.0.0.0" for every one.
        port: gRPC's port; 0 picks a free one.
        rest_port: REST's port; None for no REST.
        rest_cors: Whether scripts of any web page may call the REST port.
        max_workers: The number of predictions that run at a time; more wait.
        max_concurrent_calls: Predictions beyond this, running or waiting, on
            both ports together, are refused as RESOURCE_EXHAUSTED; None for no
            limit.
        max_message_bytes: Larger requests are refused as RESOURCE_EXHAUSTED;
            -1 for no limit.
        poll_seconds: Time between looks for new versions; 0 for none.
        tls: Certificates of the gRPC port; None for no encryption.

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
        rest_cors: bool = False,
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
        self.rest_cors = rest_cors
        self.max_workers = max_workers
        self.max_concurrent_calls = max_concurrent_calls
        self.max_message_bytes = max_message_bytes
        self.poll_seconds = poll_seconds
        self.tls = tls
        self._metrics = Metrics()
        self._catalog = Catalog()
        self._served = ServedModels(self._catalog)
        self._loading = ThreadPoolExecutor(1, "serving-load")
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()),
            name="serving",
            daemon=True,
        )
        self._opened: Future[None] = Future()
        self._started = False

    @property
    def versions(self) -> Mapping[str, list[int]]:
        """Versions that answer requests, by model name."""
        names = self._catalog.model_names()
        return {name: self._catalog.available(name) for name in names}

    def start(self) -> None:
        """Loads the models, then opens the ports.

        Afterwards `port`, `rest_port` and `versions` say what is served where.
        A server starts once.

        Raises:
            ServingError: If a model has no version that loads and warms up,
                an address or a TLS file cannot be used, or the server was
                started before.
        """
        if self._started:
            raise ServingError("A server starts once; make a new one.")
        self._started = True
        try:
            self._load()
            self._thread.start()
            self._opened.result()
        except BaseException:
            self.stop()
            raise

    def stop(self, grace: float | None = None) -> None:
        """Lets calls in flight end, closes the ports, frees the models.

        Calls that come after this one end UNAVAILABLE, over REST as refused
        connections; health checks answer NOT_SERVING meanwhile.

        Args:
            grace: Seconds that calls in flight may still take; beyond them
                they end UNAVAILABLE. None gives them up at once.
        """
        self._started = True
        if self._thread.is_alive():
            # Where the loop has just ended by itself, there is nothing to do.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end, grace)
            self._thread.join()
        self._loading.shutdown(wait=False, cancel_futures=True)
        self._catalog.close()

    def wait(self, timeout: float | None = None) -> None:
        """Waits until the server is stopped.

        Args:
            timeout: The longest wait in seconds; None for no limit.
        """
        if self._thread.is_alive():
            self._thread.join(timeout)

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

    def _load(self) -> None:
        try:
            missing = self._served.configure(self.models)
        except StatusError as error:
            raise ServingError(error.message) from error
        if missing:
            raise ServingError(" ".join(missing.values()))

    # === In the thread of the event loop ===

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Future[float | None] = self._loop.create_future()
        self._pool = RunPool(self.max_workers, self.max_concurrent_calls)
        rest = None
        grpc_port = self._make_grpc_port()
        try:
            self.port = await grpc_port.open(self.host, self.port, self.tls)
            if self.rest_port is not None:
                rest = self._make_rest_port()
                self.rest_port = await rest.open(self.host, self.rest_port)
        except BaseException as error:
            await grpc_port.close(None)
            self._pool.close()
            # `start` raises it.
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        watching = asyncio.create_task(self._watch())
        grace = await self._ending
        watching.cancel()
        await self._close(grace, grpc_port, rest)

    def _end(self, grace: float | None) -> None:
        if not self._ending.done():
            self._ending.set_result(grace)

    async def _close(
        self,
        grace: float | None,
        grpc_port: GrpcPort,
        rest: "RestPort | None",
    ) -> None:
        await grpc_port.announce_end()
        if grace is not None:
            end = time.monotonic() + grace
            if rest is not None:
                await rest.stop_listening()
            await self._pool.drain(grace)
            grace = max(0.0, end - time.monotonic())
        await grpc_port.close(grace)
        if rest is not None:
            await rest.close()
        self._pool.close()

    async def _watch(self) -> None:
        while self.poll_seconds > 0:
            await asyncio.sleep(self.poll_seconds)
            try:
                await self._loop.run_in_executor(
                    self._loading, self._served.look_again
                )
            # Whatever goes wrong with a look, what is served goes on.
            except Exception:
                _LOGGER.exception("Cannot look for new versions")

    def _make_grpc_port(self) -> GrpcPort:
        return GrpcPort(
            PredictionService(self._catalog, self._metrics, self._pool),
            ModelService(
                self._catalog, self._served, self._pool, self._loading
            ),
            max_message_bytes=self.max_message_bytes,
        )

    def _make_rest_port(self) -> "RestPort":
        # Imported late: without REST nobody needs aiohttp.
        from .rest import RestPort

        return RestPort(
            self._catalog,
            self._metrics,
            self._pool,
            max_message_bytes=self.max_message_bytes,
            cors=self.rest_cors,
        )
