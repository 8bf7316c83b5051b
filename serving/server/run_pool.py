"""The threads in which models run, and what calls may take of them."""

import asyncio
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from .status import StatusError, invalid

Answer = TypeVar("Answer")

# Who has just had an answer and asks again is to be turned away, too, before
# the port closes: a call that gRPC's own stop meets ends CANCELLED, which no
# client asks again.
_LINGER_SECONDS = 1.0
_LONGEST_TIMEOUT_MS = 2**31 - 1


@dataclass
class Limits:
    """The bounds of one call.

    Args:
        max_bytes: Largest request, also once it is expanded; -1 for no limit.
        deadline: The call's end by `time.monotonic()`; None for none.
    """

    max_bytes: int = -1
    deadline: float | None = None

    @property
    def timeout_ms(self) -> int:
        """Milliseconds that are left; 0 for no limit."""
        if self.deadline is None:
            return 0
        milliseconds = (self.deadline - time.monotonic()) * 1000
        return int(max(1, min(milliseconds, _LONGEST_TIMEOUT_MS)))

    def check(self) -> None:
        """Raises a TimeoutError after the deadline."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError

    def check_bytes(self, count: int) -> None:
        """Refuses a request of more bytes than allowed."""
        if 0 <= self.max_bytes < count:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Received message larger than max ({count} vs. "
                f"{self.max_bytes}); send less at a time.",
            )

    def expand(self, body: bytes | bytearray) -> bytes:
        """Decompresses a body of gzip, at most as far as allowed."""
        # 16: with the header and the checksum of gzip.
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            # 0 would mean no bound, and so does what a limit of -1 gives.
            expanded = inflate.decompress(body, self.max_bytes + 1)
        except zlib.error as error:
            raise invalid(f"Broken gzip body: {error}") from error
        self.check_bytes(len(expanded))
        if not inflate.eof:
            raise invalid("Broken gzip body: its end is missing")
        return expanded


class RunPool:
    """Runs calls in threads; refuses those that are too many or too late.

    A call whose client leaves while it waits for a thread is dropped, and so is
    one whose request is still being parsed. One that runs keeps its thread
    until its deadline, as in TensorFlow Serving. The methods belong to one
    event loop, which a run never blocks.
    """

    def __init__(self, max_workers: int, max_calls: int | None) -> None:
        self._threads = ThreadPoolExecutor(max_workers, "serving-run")
        # Running or waiting; None for no limit.
        self._max_calls = max_calls
        self._calls: set[asyncio.Future[Any]] = set()
        self._open = True

    async def run(self, call: Callable[[], Answer], limits: Limits) -> Answer:
        """Returns what a function of no arguments answers, in a thread."""
        self.check_open()
        if self._max_calls is not None and len(self._calls) >= self._max_calls:
            # As TensorFlow Serving's full queues: of all codes, clients try
            # only this one again. RESOURCE_EXHAUSTED is for what never fits.
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                f"The server is full: {self._max_calls} calls run or wait; ask "
                "another one, or again later.",
            )
        loop = asyncio.get_running_loop()
        # The threads' queue keeps a call that was cancelled: not its request.
        kept = [call]
        future = loop.run_in_executor(self._threads, lambda: kept.pop()())
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        try:
            return await future
        except asyncio.CancelledError:
            kept.clear()
            # Nobody waits for an answer: what is being parsed is late.
            limits.deadline = 0.0
            raise

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
