"""What serving costs: a server under load against the direct call.

`python -m bmt_keras.serving.bench --models models/bmt --photo beach.jpg`
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from rich.console import Console
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras import contract

from .errors import ServingError
from .figures import describe_run, make_table, write_figures
from .load import offer_load
from .photo_requests import ask, make_photo_request, read_texts
from .server.predict import predict
from .server.servable import Servable
from .server.version_folders import VersionFolder, find_latest_version
from .server_process import serve_in_own_process

_ROUNDS = 5
_COLUMNS = {
    "what": "",
    "photos_a_call": "photos a call",
    "concurrency": "calls at once",
    "rate": "calls due/s",
    "calls": "answered",
    "failures": "failed",
    "photos_a_second": "photos/s",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
}
Row = dict[str, Any]
Ask = Callable[[PredictRequest], Any]


class ServingBench:
    """Measures a captioner in this process and behind a server of its own.

    Args:
        folder: VersionFolder of the captioner.
        photos: encoded photos; calls take one after the other.
        seconds: float. Length of each measurement.

    Attributes:
        ratios: dict of what serving costs, once the calls are measured that
            take turns with direct ones: medians over the rounds.

    Example:
        ```python
        bench = ServingBench(folder, [photo], seconds=10)
        rows = list(bench.run([1, 4], [0.5], batch=16))
        ```
    """

    def __init__(
        self, folder: VersionFolder, photos: Sequence[bytes], seconds: float
    ) -> None:
        self._folder = folder
        self._photos = photos
        self._seconds = seconds
        self.ratios: dict[str, float] = {}

    def run(
        self, concurrencies: Sequence[int], shares: Sequence[float], batch: int
    ) -> Iterator[Row]:
        """Measures one load after the other.

        Args:
            concurrencies: calls under way at most.
            shares: open-loop rates, as shares of the rate of direct calls.
            batch: int. Photos of a large call.

        Yields:
            dict for each load: direct calls, the same calls to the server,
            large calls, closed and open loops.
        """
        with (
            closing(Servable(self._folder)) as servable,
            serve_in_own_process(self._folder) as (address, _),
            grpc.insecure_channel(address) as channel,
        ):
            served = partial(ask, PredictionServiceStub(channel))
            direct = partial(predict, servable)

            # In turns: a busy machine slows all three.
            rounds = [
                (
                    self._measure("direct", direct, parts=_ROUNDS),
                    self._measure("served", served, parts=_ROUNDS),
                    self._measure(
                        "served", served, photos_a_call=batch, parts=_ROUNDS
                    ),
                )
                for _ in range(_ROUNDS)
            ]
            self.ratios = _compare(rounds)
            merged = [_merge(rows) for rows in zip(*rounds, strict=True)]
            yield from merged
            rates = [share * merged[0]["calls_a_second"] for share in shares]
            for concurrency in concurrencies:
                yield self._measure(
                    "closed loop", served, concurrency=concurrency
                )
            for concurrency in concurrencies:
                for rate in rates:
                    yield self._measure(
                        "open loop", served, concurrency=concurrency, rate=rate
                    )

    def _measure(
        self,
        what: str,
        get_response: Ask,
        *,
        concurrency: int = 1,
        photos_a_call: int = 1,
        rate: float | None = None,
        parts: int = 1,
    ) -> Row:
        requests = [
            make_photo_request([photo] * photos_a_call)
            for photo in self._photos
        ]

        def call(number: int) -> bool:
            response = get_response(requests[number % len(requests)])
            return not any(read_texts(response, contract.ERROR))

        get_response(requests[0])  # The first run of a batch's size is slow.
        measured = offer_load(
            call,
            seconds=self._seconds / parts,
            concurrency=concurrency,
            rate=rate,
        )
        return {
            "what": what,
            "photos_a_call": photos_a_call,
            "concurrency": concurrency,
            "rate": rate,
            "photos_a_second": measured.calls_a_second * photos_a_call,
            **asdict(measured),
        }


def _merge(rows: Sequence[Row]) -> Row:
    """One row of the rounds of one kind: sums of counts, else medians."""
    merged = dict(rows[0])
    for name, value in rows[0].items():
        if name in ("calls", "failures"):
            merged[name] = sum(row[name] for row in rows)
        elif isinstance(value, float):
            merged[name] = statistics.median(row[name] for row in rows)
    return merged


def _compare(rounds: Sequence[tuple[Row, Row, Row]]) -> dict[str, float]:
    return {
        "p50_served_over_direct": statistics.median(
            served["p50_ms"] / direct["p50_ms"] for direct, served, _ in rounds
        ),
        "photos_a_second_batched_over_single": statistics.median(
            batched["photos_a_second"] / served["photos_a_second"]
            for _, served, batched in rounds
        ),
    }


# === The command ===


def bench(
    photo: Annotated[list[Path], typer.Option(help="A photo; repeatable.")],
    models: Annotated[
        Path, typer.Option(help="Folder of the model's numbered versions.")
    ] = Path("models/bmt"),
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path(
        "runs/bench-serving.json"
    ),
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Length of each measurement.")
    ] = 20.0,
    concurrency: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeatable; 1, 4 and 16.")
    ] = None,
    share: Annotated[
        list[float] | None,
        typer.Option(help="Of the direct rate; repeatable; 0.5, 0.8 and 1."),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Photos of a large call.")
    ] = 16,
) -> None:
    """Measure a server under load against the direct call."""
    folder = find_latest_version(models)
    photos = [path.read_bytes() for path in photo]
    console = Console()
    rows = []
    measured = ServingBench(folder, photos, seconds)
    for row in measured.run(
        concurrency or [1, 4, 16], share or [0.5, 0.8, 1.0], batch
    ):
        console.print(f"{row['what']}: {row['calls']} calls", highlight=False)
        rows.append(row)
    summary = {
        **describe_run(folder.path),
        "seconds": seconds,
        **measured.ratios,
        "rows": rows,
    }
    console.print(make_table(_COLUMNS, rows))
    write_figures(out, summary)
    console.print(f"Written to {out}", highlight=False)


if __name__ == "__main__":
    try:
        typer.run(bench)
    except (ServingError, OSError) as error:
        sys.exit(f"bench: {error}")
