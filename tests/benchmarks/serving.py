"""What does serving cost, compared with the direct call?

python tests/benchmarks/serving.py --models models/bmt --out bench.json a.jpg
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import measure
import tensorflow as tf
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

_ROUNDS = 5
_COLUMNS = {
    "what": "",
    "images_per_call": "images per call",
    "concurrency": "calls at once",
    "rate": "calls due/s",
    "calls": "answered",
    "failures": "failed",
    "images_per_second": "images/s",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
}
Figures = dict[str, Any]
# Captions images, by the number of the call; tells whether it went well.
Call = Callable[[int], bool]


def call_directly(version: Path, images: Sequence[bytes]) -> Call:
    """Runs the default signature in this process."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], str(version)
        )
    signature = loaded.signature_def["serving_default"]
    outputs = {name: info.name for name, info in signature.outputs.items()}
    image_bytes = signature.inputs["image_bytes"].name

    def call(number: int) -> bool:
        image = images[number % len(images)]
        return not any(session.run(outputs, {image_bytes: [image]})["error"])

    return call


def call_server(stub: Any, images: Sequence[bytes], batch: int = 1) -> Call:
    """Asks a server for the captions of each image, `batch` times at once."""
    requests = [make_request([image] * batch) for image in images]

    def call(number: int) -> bool:
        response = ask(stub, requests[number % len(requests)])
        return not any(read_texts(response, "error"))

    return call


def measure_call(
    what: str,
    call: Call,
    *,
    seconds: float,
    batch: int = 1,
    concurrency: int = 1,
    rate: float | None = None,
) -> Figures:
    call(0)  # The first run of a batch's size is slow.
    figures = offer_load(
        call, seconds=seconds, concurrency=concurrency, rate=rate
    )
    return {
        "what": what,
        "images_per_call": batch,
        "concurrency": concurrency,
        "rate": rate,
        "images_per_second": figures["calls_per_second"] * batch,
        **figures,
    }


def compare_in_turns(
    direct: Call, served: Call, large: Call, *, batch: int, seconds: float
) -> tuple[dict[str, float], list[Figures]]:
    """Gives the ratios, and a row for each of the three kinds of calls."""
    part = seconds / _ROUNDS
    rounds = [
        (
            measure_call("direct", direct, seconds=part),
            measure_call("served", served, seconds=part),
            measure_call("served", large, seconds=part, batch=batch),
        )
        for _ in range(_ROUNDS)
    ]
    ratios = {
        "p50_served_over_direct": statistics.median(
            one["p50_ms"] / none["p50_ms"] for none, one, _ in rounds
        ),
        "photos_a_second_batched_over_single": statistics.median(
            many["images_per_second"] / one["images_per_second"]
            for _, one, many in rounds
        ),
    }
    return ratios, [_merge(rows) for rows in zip(*rounds, strict=True)]


def _merge(rows: Sequence[Figures]) -> Figures:
    """One row of several rounds: sums of counts, medians of the rest."""
    merged = dict(rows[0])
    for name, value in rows[0].items():
        if name in ("calls", "failures"):
            merged[name] = sum(row[name] for row in rows)
        elif isinstance(value, float):
            merged[name] = statistics.median(row[name] for row in rows)
    return merged


def measure_loops(
    call: Call, options: argparse.Namespace, direct_rate: float
) -> Iterator[Figures]:
    """Closed loops, then open ones at shares of the direct calls' rate."""
    for rate in (None, *(share * direct_rate for share in options.share)):
        for concurrency in options.concurrency:
            yield measure_call(
                "closed loop" if rate is None else "open loop",
                call,
                seconds=options.seconds,
                concurrency=concurrency,
                rate=rate,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("photos", nargs="*", type=Path, help="made ones by default")
    add("--models", type=Path, default=Path("models/bmt"))
    add("--out", type=Path, required=True, help="JSON file to write")
    add("--seconds", type=float, default=20.0, help="of each measurement")
    add("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    add("--share", type=float, nargs="*", default=[0.5, 0.8, 1.0])
    add("--batch", type=int, default=16, help="images of a large call")
    options = parser.parse_args(arguments)
    version = find_latest_version(options.models)
    images = read_images(options.photos)
    with (
        serve(version) as (address, _),
        grpc.insecure_channel(address) as channel,
    ):
        stub = PredictionServiceStub(channel)
        served = call_server(stub, images)
        ratios, rows = compare_in_turns(
            call_directly(version, images),
            served,
            call_server(stub, images, options.batch),
            batch=options.batch,
            seconds=options.seconds,
        )
        results = {
            **measure.describe_machine(),
            "model": str(version),
            "seconds": options.seconds,
            **ratios,
            "rows": rows,
        }
        measure.write_json(options.out, results)
        rows += measure_loops(served, options, rows[0]["calls_per_second"])
    measure.print_table("serving", _COLUMNS, rows)
    for name, ratio in ratios.items():
        measure.CONSOLE.print(f"{name}: {ratio:.3g}")
    measure.write_json(options.out, results)


if __name__ == "__main__":
    try:
        main()
    except (LoadError, OSError) as error:
        sys.exit(f"serving.py: {error}")
