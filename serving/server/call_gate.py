"""The gate before a gRPC server's calls: it closes before the port does."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

_HEALTH = "/grpc.health.v1.Health/"
# Who has just had an answer and asks again is to meet the gate, too.
_LINGER_SECONDS = 1.0


class CallGate(grpc.ServerInterceptor):
    """Lets calls in, until it closes; then tells when those inside have ended.

    A call that comes while gRPC stops a server ends CANCELLED, which no client
    asks again. So the gate closes first: from then on calls end UNAVAILABLE,
    and only health checks pass.

    Args:
        max_workers: int. The number of calls answered at a time.

    Attributes:
        workers: ThreadPoolExecutor that answers the calls let in.

    Example:
        ```python
        gate = CallGate(max_workers=16)
        server = grpc.server(gate.workers, interceptors=[gate])
        gate.close()
        gate.wait_until_empty(30.0)
        server.stop(1.0).wait()
        ```
    """

    def __init__(self, max_workers: int) -> None:
        self.workers = _CountingPool(max_workers, thread_name_prefix="serving")
        self._closed = False
        # A call is turned away even where all workers are busy.
        self._turning_away = ThreadPoolExecutor(1, "turning-away")
        self._refusal = _make_refusal(self._turning_away)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Finds what answers a call, in the moment in which it comes."""
        if self._closed and not handler_call_details.method.startswith(_HEALTH):
            return self._refusal
        return continuation(handler_call_details)

    def close(self) -> None:
        """Turns away every call from now on."""
        self._closed = True

    def wait_until_empty(self, timeout: float) -> None:
        """Waits until the calls that were let in have ended, and a second more.

        Args:
            timeout: float. The longest wait in seconds.
        """
        end = time.monotonic() + timeout
        self.workers.wait_until_idle(timeout)
        time.sleep(max(0.0, min(_LINGER_SECONDS, end - time.monotonic())))

    def shut_down(self) -> None:
        """Ends the threads once their work is done, without waiting."""
        self.workers.shutdown(wait=False)
        self._turning_away.shutdown(wait=False)


class _CountingPool(ThreadPoolExecutor):
    """Threads that tell when there is nothing left to do."""

    def __init__(self, max_workers: int, **options: Any) -> None:
        super().__init__(max_workers, **options)
        self._unfinished = 0
        self._changed = threading.Condition()

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> "Future[Any]":
        with self._changed:
            future = super().submit(fn, *args, **kwargs)
            self._unfinished += 1
        future.add_done_callback(self._count_down)
        return future

    def wait_until_idle(self, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._unfinished, timeout)

    def _count_down(self, future: "Future[Any]") -> None:
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()


def _make_refusal(pool: ThreadPoolExecutor) -> grpc.RpcMethodHandler:
    def refuse(requests: Any, context: grpc.ServicerContext) -> None:
        context.abort(
            grpc.StatusCode.UNAVAILABLE,
            "The server is shutting down; ask another one, or again later.",
        )

    refuse.experimental_thread_pool = pool  # type: ignore[attr-defined]
    # Of this kind, it answers without waiting for the request's message.
    return grpc.stream_unary_rpc_method_handler(refuse)
