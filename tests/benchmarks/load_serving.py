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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import measure
import numpy as np

from serving import ask, parse, serve

_EVERY = 10  # One image in ten is corrupt.
_PROBE_SECONDS = 5.0
# Of what a closed loop gets answered: full, but not beyond it.
_SHARE = 0.75
_MOST_SECONDS_MORE = 300.0


class LoadTest:
    """Asks a server for captions of good and corrupt images, and judges them.

    `counts` holds the right and wrong answers by kind of image, `versions` how
    often each version answered, `reasons` the failures in words.
    """

    def __init__(self, stub: Any, images: Sequence[bytes]) -> None:
        self._stub = stub
        self._images = images
        self._lock = threading.Lock()
        self._expected = [self._ask(image)[0] for image in images]
        self.counts = {
            kind: {"right": 0, "wrong": 0} for kind in ("good", "corrupt")
        }
        self.versions: Counter[int] = Counter()
        self.reasons: list[str] = []

    def call(self, number: int) -> bool:
        """Asks for one image; tells whether the answer was right."""
        which = number % len(self._images)
        image, kind = self._images[which], "good"
        if number % _EVERY == _EVERY - 1:
            # A broken head, and a length that is its own.
            image = b"BAD" + image[3 : len(image) // 2] + b"\0" * number
            kind = "corrupt"
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
            self.counts[kind]["right" if right else "wrong"] += 1
            self.versions[version] += 1
            if not right:
                self.reasons.append(f"a {kind} image: {caption!r}, {error!r}")
        return right

    def _ask(self, image: bytes) -> tuple[str, str, int]:
        (caption,), (error,), version = ask(self._stub, [image])
        return caption, error, version


def offer_load(
    call: Callable[[int], bool],
    *,
    seconds: float,
    concurrency: int,
    rate: float = 0,
    is_done: Callable[[], bool] = lambda: True,
) -> dict[str, Any]:
    """Calls again and again from several threads, and measures.

    Calls are due at random times, `rate` per second, that do not wait for
    answers (an open loop), and a call's time counts from when it was due: a
    server that falls behind shows it. At rate 0 each thread calls as soon as it
    has its answer (a closed loop). Calls are begun until the seconds are over
    and `is_done`, for five minutes more at most.
    """
    start = due = time.perf_counter()
    end = start + seconds
    draws, numbers = np.random.default_rng(0), itertools.count()
    lock = threading.Lock()
    times: list[float] = []
    failures: list[int] = []

    def work(_: int) -> None:
        nonlocal due
        while True:
            with lock:
                number = next(numbers)
                due += draws.exponential(1 / rate) if rate else 0
                moment = due if rate else time.perf_counter()
            late = moment - end
            if late >= _MOST_SECONDS_MORE or (late >= 0 and is_done()):
                return
            time.sleep(max(0.0, moment - time.perf_counter()))
            if call(number):
                times.append(time.perf_counter() - moment)
            else:
                failures.append(number)

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(work, range(concurrency)))
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


def main(arguments: Sequence[str] | None = None) -> None:
    options, version, images = parse(
        __doc__,
        arguments,
        seconds=(60.0, "length of the load"),
        concurrency=(16, "calls at once, at most"),
        rate=(0.0, "calls per second; a fitting one by default"),
    )
    load = {"concurrency": options.concurrency, "rate": options.rate}
    with serve(version) as (stub, add_version):
        if not options.rate:
            test = LoadTest(stub, images)
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
        "counts": test.counts,
        "versions": dict(sorted(test.versions.items())),
        "reasons": test.reasons[:5],
        "passed": passed,
    }
    measure.write_json(options.out, results)
    if not passed:
        sys.exit(1)


if __name__ == "__main__":
    main()
