"""The threads in which models run, and how many calls may want one."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from .status import StatusError

Answer = TypeVar("Answer")

_LONGEST_TIMEOUT_MS = 2**31 - 1
# Who has just had an answer and asks again is to be turned away, too, before
# the port closes: a call that gRPC's own stop meets ends CANCELLED, which no
# client asks again.
_LINGER_SECONDS = 1.0


class RunPool:
    """Runs calls in threads; refuses those that are too many or too late.

    A call whose client leaves while it waits for a thread is dropped. One that
    runs keeps its thread until its deadline, as in TensorFlow Serving. The
    methods belong to one event loop, which a run never blocks.
    """

    def __init__(self, max_workers: int, max_calls: int | None) -> None:
        self._threads = ThreadPoolExecutor(max_workers, "serving-run")
        # Running or waiting; None for no limit.
        self._max_calls = max_calls
        self._calls: set[asyncio.Future[Any]] = set()
        self._open = True

    async def run(self, call: Callable[[], Answer]) -> Answer:
        """Returns what a function of no arguments answers, in a thread."""
        self.check_open()
        if self._max_calls is not None and len(self._calls) >= self._max_calls:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "Concurrent RPC limit exceeded!",
            )
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, call)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return await future

    def check_open(self) -> None:
        """Refuses a call once the pool is closed."""
        if not self._open:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                "The server is shutting down; ask another one, or again later.",
            )

    async def drain(self, seconds: float) -> float:
        """Closes the pool, then waits for its calls and a second more.

        Returns what is left of the seconds.
        """
        self._open = False
        end = time.monotonic() + seconds
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)
        left = max(0.0, end - time.monotonic())
        await asyncio.sleep(min(_LINGER_SECONDS, left))
        return max(0.0, end - time.monotonic())

    def close(self) -> None:
        """Drops the calls that wait and ends the threads, without waiting."""
        self._open = False
        self._threads.shutdown(wait=False, cancel_futures=True)


def remaining_ms(deadline: float | None) -> int:
    """Returns the time until a point of `time.monotonic()`; 0 for no limit."""
    if deadline is None:
        return 0
    milliseconds = (deadline - time.monotonic()) * 1000
    return int(max(1, min(milliseconds, _LONGEST_TIMEOUT_MS)))
