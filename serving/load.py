"""Load on a server, and how long its answers take."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np

from .errors import ServingError
from .server.status import StatusError

_SEED = 0
_MOST_SECONDS_MORE = 300.0


@dataclass(frozen=True)
class Measured:
    """What a load showed.

    Args:
        calls: int, those that succeeded.
        failures: int, those that did not.
        took_s: float. Seconds until the last one had ended.
        calls_a_second: float, successful ones.
        p50_ms: float. Half of the successful calls took at most this long.
        p95_ms: float.
        p99_ms: float.
    """

    calls: int
    failures: int
    took_s: float
    calls_a_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def offer_load(
    call: Callable[[int], bool],
    *,
    seconds: float,
    concurrency: int,
    rate: float | None = None,
    halfway: Callable[[], None] | None = None,
    go_on_while: Callable[[], bool] = lambda: False,
) -> Measured:
    """Calls again and again, and measures.

    Args:
        call: function of the call's number, which returns whether the answer
            was right. It is called from several threads.
        seconds: float. How long calls are begun.
        concurrency: int. The most calls under way at a time.
        rate: float. Calls a second, at random times that do not wait for
            answers (an open loop). A call's time counts from when it was due,
            so that a server that falls behind shows it. None: each thread
            calls as soon as it has its answer (a closed loop).
        halfway: function to call after half the time.
        go_on_while: function that tells whether calls are to be begun beyond
            the time, for five minutes at most.

    Returns:
        Measured.

    Raises:
        ServingError: If no call succeeded.
    """
    start = time.perf_counter()
    end = start + seconds
    dues = _draw_dues(start, rate)
    lock = threading.Lock()
    times: list[float] = []
    failures: list[int] = []

    def is_over(moment: float) -> bool:
        if moment < end:
            return False
        return moment >= end + _MOST_SECONDS_MORE or not go_on_while()

    def work() -> None:
        while True:
            with lock:
                number, due = next(dues)
            begin = time.perf_counter()
            if is_over(begin if rate is None else due):
                return
            if rate is not None:
                time.sleep(max(0.0, due - begin))
                begin = due
            if _succeeds(call, number):
                times.append(time.perf_counter() - begin)
            else:
                failures.append(number)

    with ThreadPoolExecutor(concurrency) as pool:
        threads = [pool.submit(work) for _ in range(concurrency)]
        if halfway is not None:
            time.sleep(seconds / 2)
            halfway()
        for thread in threads:
            thread.result()
    taken = time.perf_counter() - start
    if not times:
        raise ServingError(
            f"A load needs calls that succeed. All {len(failures)} failed."
        )
    p50, p95, p99 = np.percentile(np.array(times) * 1000, [50, 95, 99]).tolist()
    return Measured(
        len(times), len(failures), taken, len(times) / taken, p50, p95, p99
    )


def _draw_dues(start: float, rate: float | None) -> Iterator[tuple[int, float]]:
    """Yields the numbers of calls, and when each is due."""
    draws = np.random.default_rng(_SEED)
    due = start
    for number in itertools.count():
        if rate is not None:
            due += draws.exponential(1 / rate)
        yield number, due


def _succeeds(call: Callable[[int], bool], number: int) -> bool:
    try:
        return call(number)
    except (grpc.RpcError, StatusError):
        return False
