"""A server in a process of its own, and load on it."""

import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import corpus
import grpc
import measure
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

_CALL_SECONDS = 120.0
_MOST_SECONDS_MORE = 300.0


class LoadError(Exception):
    """No figures can be given."""


# === The server ===


def find_latest_version(models: Path) -> Path:
    folders = models.iterdir() if models.is_dir() else []
    versions = [each for each in folders if each.name.isdigit()]
    if not versions:
        raise LoadError(
            f"{models}: expected a folder named by a version number, found "
            "none; make export writes one."
        )
    return max(versions, key=lambda each: int(each.name))


@contextmanager
def serve(version: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Serves a version; gives the address and what publishes it once more."""
    with tempfile.TemporaryDirectory() as name:
        numbers = itertools.count(1)

        def add_version() -> None:
            link = Path(name) / str(next(numbers))
            link.symlink_to(version.absolute())

        add_version()
        command = [sys.executable, __file__, "serve"]
        with subprocess.Popen(
            [*command, "--models", name, "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield _read_address(process), add_version
            finally:
                process.send_signal(signal.SIGTERM)


def _read_address(process: subprocess.Popen[str]) -> str:
    for line in process.stdout or ():
        if found := re.search(r"(\S+:\d+)$", line):
            return found[1]
    raise LoadError("The server ended before it was up; its error is above.")


# === Requests ===


def read_images(paths: Sequence[Path]) -> list[bytes]:
    """Encoded images: those of the files, or made ones if there are none."""
    if paths:
        return [path.read_bytes() for path in paths]
    rng = np.random.default_rng(0)
    return [corpus.make_image(rng) for _ in range(8)]


def make_request(images: Sequence[bytes]) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = "bmt"
    request.inputs["image_bytes"].CopyFrom(
        tf.make_tensor_proto(list(images), tf.string)
    )
    return request


def ask(stub: Any, request: PredictRequest) -> PredictResponse:
    return stub.Predict(request, timeout=_CALL_SECONDS)


def read_texts(response: PredictResponse, output: str) -> list[str]:
    texts = response.outputs[output].string_val
    return [text.decode(errors="replace") for text in texts]


# === Load ===


def offer_load(
    call: Callable[[int], bool],
    *,
    seconds: float,
    concurrency: int,
    rate: float | None = None,
    halfway: Callable[[], None] | None = None,
    go_on_while: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Calls again and again from several threads, and measures.

    Args:
        call: Takes the call's number; returns whether the answer was right.
        seconds: How long calls are begun.
        concurrency: The most calls under way at a time.
        rate: Calls per second, at random times that do not wait for answers
            (an open loop). A call's time counts from when it was due, so that
            a server that falls behind shows it. None: each thread calls as
            soon as it has its answer (a closed loop).
        halfway: Called after half the time.
        go_on_while: Whether calls are begun beyond the time, for five minutes
            at most.

    Raises:
        LoadError: If no call succeeded.
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
        raise LoadError(f"No call succeeded: all {len(failures)} failed.")
    p50, p95, p99 = np.percentile(np.array(times) * 1e3, [50, 95, 99]).tolist()
    return {
        "calls": len(times),
        "failures": len(failures),
        "took_s": taken,
        "calls_per_second": len(times) / taken,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
    }


def _draw_dues(start: float, rate: float | None) -> Iterator[tuple[int, float]]:
    """Gives the numbers of calls, and when each is due."""
    draws = np.random.default_rng(0)
    due = start
    for number in itertools.count():
        if rate is not None:
            due += draws.exponential(1 / rate)
        yield number, due


def _succeeds(call: Callable[[int], bool], number: int) -> bool:
    try:
        return call(number)
    except grpc.RpcError:
        return False


if __name__ == "__main__":
    # `bmt serve`, but it ends with the benchmark, even with a killed one.
    measure.end_with(os.getppid())
    from bmt_keras.commands import main

    main()
