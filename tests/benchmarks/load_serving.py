"""Does a server stand a minute of load, with corrupt images and a reload in it?

python tests/benchmarks/load_serving.py --models models/bmt --out load.json

An image must get the caption that it had before the load; a corrupt one an
empty caption and an error that tells its own number of bytes (no two corrupt
images of a run have the same). Halfway a new version is published. The exit
code is 1 if an answer was wrong or a version did not answer.
"""

import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import measure
import numpy as np
from own_server import (
    ask,
    find_latest_version,
    make_parser,
    read_images,
    serve,
)

_EVERY = 10  # One image in ten is corrupt.
_PROBE_SECONDS = 5.0
# Of what a closed loop gets answered: full, but not beyond it.
_SHARE = 0.75
_MOST_SECONDS_MORE = 300.0


class LoadTest:
    """Asks a server for captions of good and corrupt images, and judges them.

    Attributes:
        counts: Counter of (kind of image, whether its answer was right).
        versions: Counter of the versions that answered.
        reasons: The failures, in words.
    """

    def __init__(self, stub: Any, images: Sequence[bytes]) -> None:
        self._stub = stub
        self._images = images
        self._lock = threading.Lock()
        self._expected = [self._ask(image)[0] for image in images]
        self.counts: Counter[tuple[str, bool]] = Counter()
        self.versions: Counter[int] = Counter()
        self.reasons: list[str] = []

    def call(self, number: int) -> bool:
        """Asks for one image; tells whether the answer was right."""
        which = number % len(self._images)
        image, kind = self._images[which], "good"
        if number % _EVERY == _EVERY - 1:
            image, kind = _spoil(image, number), "corrupt"
        try:
            caption, error, version = self._ask(image)
        except grpc.RpcError as failure:
            # No caption of ours, and not empty as a corrupt image's must be.
            caption, error, version = str(failure.code()), failure.details(), 0
        if kind == "corrupt":
            right = not caption and f"received {len(image)} bytes" in error
        else:
            right = not error and caption == self._expected[which]
        with self._lock:
            self.counts[kind, right] += 1
            self.versions[version] += 1
            if not right:
                self.reasons.append(f"a {kind} image: {caption!r}, {error!r}")
        return right

    def _ask(self, image: bytes) -> tuple[str, str, int]:
        (caption,), (error,), version = ask(self._stub, [image])
        return caption, error, version


def _spoil(image: bytes, number: int) -> bytes:
    """Half an image with a broken head, of a length that is its own."""
    return b"BAD" + image[3 : len(image) // 2] + b"\0" * number


def offer_load(
    call: Callable[[int], bool],
    *,
    seconds: float,
    concurrency: int,
    rate: float | None = None,
    is_done: Callable[[], bool] = lambda: True,
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
        is_done: False has calls begun beyond the time, for five minutes at
            most.
    """
    start = time.perf_counter()
    end = start + seconds
    dues = _draw_dues(start, rate)
    lock = threading.Lock()
    times: list[float] = []
    failures: list[int] = []

    def work() -> None:
        while True:
            with lock:
                number, due = next(dues)
            begin = time.perf_counter()
            moment = due if rate else begin
            if moment >= end + _MOST_SECONDS_MORE or (
                moment >= end and is_done()
            ):
                return
            time.sleep(max(0.0, moment - begin))
            if call(number):
                times.append(time.perf_counter() - moment)
            else:
                failures.append(number)

    with ThreadPoolExecutor(concurrency) as pool:
        for thread in [pool.submit(work) for _ in range(concurrency)]:
            thread.result()
    taken = time.perf_counter() - start
    if not times:
        sys.exit(f"No call succeeded: all {len(failures)} failed.")
    p50, p95, p99 = np.percentile(np.array(times) * 1e3, [50, 95, 99]).tolist()
    return {
        "concurrency": concurrency,
        "rate": rate,
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
        due += draws.exponential(1 / rate) if rate else 0.0
        yield number, due


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=60.0, help="length of the load")
    add("--concurrency", type=int, default=16, help="calls at once, at most")
    add("--rate", type=float, help="calls per second; a fitting one by default")
    options = parser.parse_args(arguments)
    version = find_latest_version(options.models)
    images = read_images(options.photos)
    with serve(version) as (stub, add_version):
        load = {"concurrency": options.concurrency, "rate": options.rate}
        test = LoadTest(stub, images)
        if options.rate is None:
            probe = offer_load(test.call, seconds=_PROBE_SECONDS, **load)
            load["rate"] = _SHARE * probe["calls_per_second"]
            test = LoadTest(stub, images)
        threading.Timer(options.seconds / 2, add_version).start()
        figures = offer_load(
            test.call,
            seconds=options.seconds,
            is_done=lambda: 2 in test.versions,
            **load,
        )
    print(
        "{calls} answered, {failures} failed, p50 {p50_ms:.1f} ms, p95 "
        "{p95_ms:.1f} ms, p99 {p99_ms:.1f} ms".format(**figures),
        *test.reasons[:5],
        sep="\n",
    )
    passed = not figures["failures"] and {*test.versions} == {1, 2}
    results = {
        **measure.describe_machine(),
        "model": str(version),
        "seconds": options.seconds,
        **figures,
        "counts": {
            kind: {"right": test.counts[kind, True], "wrong": wrong}
            for kind in ("good", "corrupt")
            for wrong in [test.counts[kind, False]]
        },
        "versions": dict(sorted(test.versions.items())),
        "reasons": test.reasons[:5],
        "passed": passed,
    }
    measure.write_json(options.out, results)
    if not passed:
        sys.exit(1)


if __name__ == "__main__":
    main()
