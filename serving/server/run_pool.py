"""The threads in which models run, and how many calls may want one."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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
        self._num_calls = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._open = True

    async def run(self, call: Callable[[], Answer]) -> Answer:
        """Returns what a function of no arguments answers, in a thread."""
        self.check_open()
        if self._max_calls is not None and self._num_calls >= self._max_calls:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "Concurrent RPC limit exceeded!",
            )
        self._num_calls += 1
        self._empty.clear()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, call)
        finally:
            self._num_calls -= 1
            if not self._num_calls:
                self._empty.set()

    def check_open(self) -> None:
        """Refuses a call once the pool is closed."""
        if not self._open:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                "The server is shutting down; ask another one, or again later.",
            )

    async def drain(self, seconds: float) -> None:
        """Closes the pool, then waits for its calls and a second more."""
        self._open = False
        end = time.monotonic() + seconds
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return
        left = end - time.monotonic()
        await asyncio.sleep(max(0.0, min(_LINGER_SECONDS, left)))

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
