"""The embedded server: models served over gRPC and REST from this process."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Self

from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList

from bmt_keras.contract import GRPC_PORT, MODEL_NAME

from ..errors import ServingError
from .grpc_port import GrpcPort, TlsFiles, listen, make_credentials
from .metrics import Metrics
from .model_config import make_model_config, read_model_config
from .run_pool import RunPool
from .served_models import ServedModels
from .status import StatusError, to_status

# Eight photos of 16 MB each; TensorFlow Serving has no limit.
MAX_MESSAGE_BYTES = 128 << 20

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
            served, or the models of a `models.config`, or such a file's path.
        model_name: The name that requests give, where `models` is a folder.
        host: The address to listen at; "0.0.0.0" for every one.
        port: gRPC's port; 0 picks a free one.
        rest_port: REST's port; None for no REST.
        rest_cors: Whether scripts of any web page may call the REST port.
        max_workers: The number of predictions that run at a time; more wait.
        max_concurrent_calls: Predictions beyond this, running or waiting, on
            both ports together, are refused as UNAVAILABLE; None for no limit.
        max_message_bytes: Requests and tensors that are larger, also once they
            are expanded, are refused as RESOURCE_EXHAUSTED; -1 for no limit.
        poll_seconds: Time between looks for new versions; 0 for none.
        config_poll_seconds: Time between looks into the `models.config`; 0 for
            none. A new one that cannot be served leaves the old one.
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
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        poll_seconds: float = 1.0,
        config_poll_seconds: float = 0.0,
        tls: TlsFiles | None = None,
    ) -> None:
        self._config_file = None
        if not isinstance(models, ModelConfigList):
            path = Path(models)
            if path.is_file():
                self._config_file, models = path, read_model_config(path)
            else:
                models = make_model_config(model_name, path)
        self.host = host
        self.port = port
        self.rest_port = rest_port
        self._config = models
        self._models = ServedModels()
        self._looks = (
            (self._models.look_again, poll_seconds),
            (self._read_config_again, config_poll_seconds),
        )
        self._tls = tls
        self._metrics = Metrics()
        self._pool = RunPool(max_workers, max_concurrent_calls)
        shared = (self._models, self._metrics, self._pool, max_message_bytes)
        self._grpc = GrpcPort(*shared)
        self._rest = None
        if rest_port is not None:
            # Imported late: without REST nobody needs aiohttp.
            from .rest import RestPort

            self._rest = RestPort(*shared, cors=rest_cors)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()),
            name="serving",
            daemon=True,
        )
        self._opened: Future[None] = Future()
        self._ending = asyncio.Event()
        self._started = False

    @property
    def versions(self) -> Mapping[str, list[int]]:
        """Versions that answer requests, by model name."""
        return self._models.available()

    def start(self) -> None:
        """Looks at ports and TLS files, loads the models, opens the ports.

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
            # Loading may take minutes; what is wrong here is said before.
            for port in (self.port, self.rest_port):
                if port is not None:
                    listen(self.host, port).close()
            tls = self._tls
            self._credentials = make_credentials(tls) if tls else None
            self._models.configure(self._config)
            self._thread.start()
            self._opened.result()
        except BaseException as error:
            self.stop()
            if isinstance(error, (StatusError, ValueError)):
                raise ServingError(to_status(error).message) from error
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
            self._grace = grace
            # Where the loop has just ended by itself, there is nothing to do.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join()
        self._pool.close()
        self._models.close()

    def wait(self, timeout: float | None = None) -> None:
        """Waits until the server is stopped, at most `timeout` seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def __enter__(self) -> Self:
        """Starts the server."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stops the server."""
        self.stop()

    # === In the thread of the event loop ===

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self.port = await self._grpc.open(
                self.host, self.port, self._credentials
            )
            if self._rest is not None and self.rest_port is not None:
                self.rest_port = await self._rest.open(
                    self.host, self.rest_port
                )
        except BaseException as error:
            await self._grpc.close(None)
            # `start` raises it.
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        watching = [
            asyncio.create_task(self._repeat(look, seconds))
            for look, seconds in self._looks
        ]
        await self._ending.wait()
        for task in watching:
            task.cancel()
        # First, so that a balancer sends its calls elsewhere.
        await self._grpc.announce_end()
        grace = self._grace
        if grace is not None:
            if self._rest is not None:
                await self._rest.stop_listening()
            grace = await self._pool.drain(grace)
        await self._grpc.close(grace)
        if self._rest is not None:
            await self._rest.close()

    async def _repeat(self, look: Callable[[], None], seconds: float) -> None:
        while seconds > 0:
            await asyncio.sleep(seconds)
            try:
                await asyncio.to_thread(look)
            # Whatever goes wrong with a look, what is served goes on.
            except Exception:
                _LOGGER.exception("What is served stays as it is")

    def _read_config_again(self) -> None:
        if self._config_file is None:
            return
        config = read_model_config(self._config_file, self._config)
        if config != self._config:
            self._models.configure(config)
            self._config = config
