"""Does a server stand a minute of load, with corrupt images and a reload in it?

python tests/benchmarks/load_serving.py --models models/bmt --out load.json

An image must get the caption that it had before the load; a corrupt one an
empty caption and an error that tells its own number of bytes (no two corrupt
images of a run have the same). Halfway a new version is published. The exit
code is 1 if an answer was wrong or a version did not answer.
"""

import argparse
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import measure
from server_load import (
    LoadError,
    ask,
    find_latest_version,
    make_request,
    offer_load,
    read_images,
    read_texts,
    serve,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

_EVERY = 10  # One image in ten is corrupt.
_PROBE_SECONDS = 5.0
# Of what a closed loop gets answered: full, but not beyond it.
_SHARE = 0.75
_MOST_REASONS = 5
_COLUMNS = {
    "photos": "images",
    "asked": "asked",
    "answered": "answered as they should",
    "failed": "failed",
}


class LoadTest:
    """Asks a server for captions of good and corrupt images, and judges them.

    Attributes:
        counts: Counter of (kind of image, whether its answer was right).
        versions: Counter of the versions that answered.
        reasons: The first failures, in words.
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
            found = f"{failure.code().name}: {failure.details()}"
            return self._judge(kind, False, found)
        with self._lock:
            self.versions[version] += 1
        if kind == "corrupt":
            right = not caption and f"received {len(image)} bytes" in error
        else:
            right = not error and caption == self._expected[which]
        found = f"caption {caption!r}, error {error!r}"
        return self._judge(kind, right, found)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "photos": kind,
                "asked": self.counts[kind, True] + self.counts[kind, False],
                "answered": self.counts[kind, True],
                "failed": self.counts[kind, False],
            }
            for kind in ("good", "corrupt")
        ]

    def _ask(self, image: bytes) -> tuple[str, str, int]:
        response = ask(self._stub, make_request([image]))
        (caption,) = read_texts(response, "caption")
        (error,) = read_texts(response, "error")
        return caption, error, response.model_spec.version.value

    def _judge(self, kind: str, right: bool, found: str) -> bool:
        with self._lock:
            self.counts[kind, right] += 1
            if not right and len(self.reasons) < _MOST_REASONS:
                self.reasons.append(f"a {kind} image: {found}")
        return right


def _spoil(image: bytes, number: int) -> bytes:
    """Half an image with a broken head, of a length that is its own."""
    return b"BAD" + image[3 : len(image) // 2] + b"\0" * number


def run_load_test(
    version: Path,
    images: Sequence[bytes],
    *,
    seconds: float,
    concurrency: int,
    rate: float | None,
) -> dict[str, Any]:
    """Loads a server of its own, longer if the new version takes its time."""
    with (
        serve(version) as (address, add_version),
        grpc.insecure_channel(address) as channel,
    ):
        stub = PredictionServiceStub(channel)
        if rate is None:
            probe = offer_load(
                LoadTest(stub, images).call,
                seconds=_PROBE_SECONDS,
                concurrency=concurrency,
            )
            rate = _SHARE * probe["calls_per_second"]
        test = LoadTest(stub, images)
        figures = offer_load(
            test.call,
            seconds=seconds,
            concurrency=concurrency,
            rate=rate,
            halfway=add_version,
            go_on_while=lambda: len(test.versions) < 2,
        )
    return {
        **measure.describe_machine(),
        "model": str(version),
        "seconds": seconds,
        "concurrency": concurrency,
        "rate": rate,
        **figures,
        "rows": test.rows(),
        "versions": {str(k): n for k, n in sorted(test.versions.items())},
        "reasons": test.reasons,
        "passed": not figures["failures"] and len(test.versions) == 2,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("photos", nargs="*", type=Path, help="made ones by default")
    add("--models", type=Path, default=Path("models/bmt"))
    add("--out", type=Path, required=True, help="JSON file to write")
    add("--seconds", type=float, default=60.0, help="length of the load")
    add("--concurrency", type=int, default=16, help="calls at once, at most")
    add("--rate", type=float, help="calls per second; a fitting one by default")
    options = parser.parse_args(arguments)
    results = run_load_test(
        find_latest_version(options.models),
        read_images(options.photos),
        seconds=options.seconds,
        concurrency=options.concurrency,
        rate=options.rate,
    )
    measure.print_table("load", _COLUMNS, results["rows"])
    measure.CONSOLE.print(
        "p50 {p50_ms:.1f} ms, p95 {p95_ms:.1f} ms, p99 {p99_ms:.1f} ms at "
        "{rate:.2f} calls/s for {took_s:.0f} s; answers by version: "
        "{versions}".format(**results)
    )
    for reason in results["reasons"]:
        measure.CONSOLE.print(f"Failed: {reason}")
    measure.write_json(options.out, results)
    if not results["passed"]:
        sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except (LoadError, OSError) as error:
        sys.exit(f"load_serving.py: {error}")
