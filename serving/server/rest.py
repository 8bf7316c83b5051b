"""REST: predict, status, metadata and metrics over HTTP."""

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import grpc

from .cancel_token import CancelToken
from .catalog import Catalog
from .examples import invalid
from .json_answers import to_json
from .metrics import Metrics
from .rest_calls import TIMEOUT_SECONDS, answer_get, answer_post
from .status import StatusError, truncate_message
from .waiting_clients import WaitingClients

# How soon it notices that it is to stop, or that a client has left.
_SECONDS_BETWEEN_LOOKS = 0.1
METRICS_PATH = "/monitoring/prometheus/metrics"
_HTTP_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}

_logger = logging.getLogger(__name__)


class RestServer(ThreadingHTTPServer):
    """Answers TensorFlow Serving's REST calls from a catalog.

    `POST /v1/models/M[/versions/N|/labels/L]:predict`, `GET` of the same path
    without a method (status) or with `/metadata`, and Prometheus' metrics. A
    connection serves one request, which may take 30 seconds.

    Args:
        address: (host, port); port 0 picks a free one.
        catalog: Catalog.
        metrics: Metrics, where calls are counted.
        max_message_bytes: int. The largest request body; -1 for no limit.
        max_concurrent_calls: int. Calls over this are refused; None for no
            limit.

    Raises:
        OSError: If the address cannot be used.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        catalog: Catalog,
        metrics: Metrics,
        *,
        max_message_bytes: int = -1,
        max_concurrent_calls: int | None = None,
    ) -> None:
        self.catalog = catalog
        self.metrics = metrics
        self.max_message_bytes = max_message_bytes
        self._limit = max_concurrent_calls
        self._in_flight = 0
        self._waiting = WaitingClients()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Takes the address, without asking a name server who it is."""
        TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])

    def start(self) -> None:
        """Answers calls from now on, in a thread of its own."""
        self._thread = threading.Thread(
            target=self.serve_forever,
            args=(_SECONDS_BETWEEN_LOOKS,),
            name="rest",
            daemon=True,
        )
        self._thread.start()

    @contextmanager
    def admit_call(self) -> Iterator[None]:
        """Counts a call while the block runs.

        Raises:
            StatusError: If there are too many.
        """
        with self._changed:
            if self._limit is not None and self._in_flight >= self._limit:
                raise StatusError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "Concurrent RPC limit exceeded!",
                )
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def service_actions(self) -> None:
        """Ends the calls of clients that have left; it is called repeatedly."""
        self._waiting.look()

    def watch(
        self, connection: socket.socket
    ) -> AbstractContextManager[CancelToken]:
        """Yields a token that is cancelled when a client leaves meanwhile."""
        return self._waiting.watch(connection)

    def close(self) -> None:
        """Closes the port, once the thread that listens to it has ended.

        A thread left to a closed port would look at it without a pause.
        """
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        self.server_close()

    def drain(self, grace: float | None) -> None:
        """Closes the port, then waits for calls in flight.

        Args:
            grace: float. The longest wait in seconds; None for none.
        """
        self.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight, grace or 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Notes a connection that broke, such as a client that went away."""
        level = (
            logging.DEBUG
            if isinstance(sys.exception(), OSError)
            else logging.ERROR
        )
        _logger.log(level, "Failed with %s", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: RestServer
    protocol_version = "HTTP/1.1"
    # Else an answer to a broken first line would have no head.
    default_request_version = "HTTP/1.0"
    timeout = TIMEOUT_SECONDS
    _unread = 0

    def do_GET(self) -> None:
        if self.path == METRICS_PATH:
            page = self.server.metrics.render().encode()
            self._send(200, page, "text/plain; version=0.0.4")
        else:
            self._answer(lambda: answer_get(self.server.catalog, self.path))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        self._unread = int(length) if length.isdecimal() else 0
        self._answer(self._post)

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        # What HTTP itself refuses, such as another method.
        self._send(code, to_json({"error": message or explain or ""}))

    def log_message(self, format: str, *args: Any) -> None:
        _logger.debug(format, *args)

    def _answer(self, call: Callable[[], Mapping[str, Any]]) -> None:
        try:
            with self.server.admit_call():
                self._send(200, to_json(call()))
        except StatusError as error:
            code = _HTTP_CODES.get(error.code, 500)
            message = truncate_message(error.message)
            self._skip_body()
            self._send(code, to_json({"error": message}))

    def _post(self) -> Mapping[str, Any]:
        body = self._read_body()
        server = self.server
        with server.watch(self.connection) as token:
            return answer_post(
                server.catalog, server.metrics, self.path, body, cancel=token
            )

    def _read_body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            raise invalid("A request must give its Content-Length.")
        limit = self.server.max_message_bytes
        if 0 <= limit < self._unread:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Received message larger than max ({self._unread} vs. "
                f"{limit})",
            )
        length, self._unread = self._unread, 0
        return self.rfile.read(length)

    def _skip_body(self) -> None:
        # A client that still sends would miss the answer.
        while self._unread > 0:
            chunk = self.rfile.read(min(self._unread, 2**16))
            self._unread = self._unread - len(chunk) if chunk else 0

    def _send(
        self, code: int, body: bytes, kind: str = "application/json"
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
