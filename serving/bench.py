"""What serving costs: a server under load against the direct call.

`python -m bmt_keras.serving.bench --models models/bmt --photo beach.jpg`
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import tensorflow as tf
import typer
from rich.console import Console
from rich.table import Table
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras import contract

from .errors import ServingError
from .load import Measured, offer_load
from .server.predict import predict
from .server.servable import Servable
from .server.tensors import make_tensor_proto
from .server.version_folders import VersionFolder, find_version_folders
from .server_process import serve_in_own_process

_CORRUPT = b"BAD photo"
_CALL_SECONDS = 120.0
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
            large calls, closed and open loops, and last a load with one
            corrupt photo in ten and a new version halfway.
        """
        servable = Servable(self._folder)
        row = self._measure("direct", lambda r: predict(servable, r))
        yield row
        servable.close()
        rates = [share * row["calls_a_second"] for share in shares]
        with (
            serve_in_own_process(self._folder) as (address, add_version),
            grpc.insecure_channel(address) as channel,
        ):
            stub = PredictionServiceStub(channel)

            def ask(request: PredictRequest) -> Any:
                return stub.Predict(request, timeout=_CALL_SECONDS)

            yield self._measure("served", ask)
            yield self._measure("served", ask, photos_a_call=batch)
            for concurrency in concurrencies:
                yield self._measure("closed loop", ask, concurrency=concurrency)
            for concurrency in concurrencies:
                for rate in rates:
                    yield self._measure(
                        "open loop", ask, concurrency=concurrency, rate=rate
                    )
            yield self._measure(
                "corrupt photos, reload",
                ask,
                concurrency=max(concurrencies),
                share_corrupt=0.1,
                halfway=add_version,
            )

    def _measure(
        self,
        what: str,
        ask: Ask,
        *,
        concurrency: int = 1,
        photos_a_call: int = 1,
        share_corrupt: float = 0.0,
        **load: Any,
    ) -> Row:
        good = [_make_request([p] * photos_a_call) for p in self._photos]
        bad = _make_request([_CORRUPT])
        every = round(1 / share_corrupt) if share_corrupt else 0

        def call(number: int) -> bool:
            if every and number % every == 0:
                return _errors(ask(bad)) == [True]
            return not any(_errors(ask(good[number % len(good)])))

        ask(good[0])  # The first run of a batch's size is slow.
        measured: Measured = offer_load(
            call, seconds=self._seconds, concurrency=concurrency, **load
        )
        return {
            "what": what,
            "photos_a_call": photos_a_call,
            "concurrency": concurrency,
            "rate": load.get("rate"),
            "photos_a_second": measured.calls_a_second * photos_a_call,
            **asdict(measured),
        }


def _make_request(photos: Sequence[bytes]) -> PredictRequest:
    array = np.empty(len(photos), dtype=object)  # (batch,)
    array[:] = photos
    request = PredictRequest()
    request.model_spec.name = contract.MODEL_NAME
    request.inputs[contract.IMAGE_BYTES].CopyFrom(make_tensor_proto(array))
    return request


def _errors(response: Any) -> list[bool]:
    """Tells for each photo of an answer whether it has an error."""
    errors = response.outputs[contract.ERROR].string_val
    return [error != b"" for error in errors]


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
    folder = find_version_folders(models)[-1]
    photos = [path.read_bytes() for path in photo]
    console = Console()
    rows = []
    for row in ServingBench(folder, photos, seconds).run(
        concurrency or [1, 4, 16], share or [0.5, 0.8, 1.0], batch
    ):
        console.print(f"{row['what']}: {row['calls']} calls", highlight=False)
        rows.append(row)
    direct, served, batched = rows[:3]
    summary = {
        "model": str(folder.path),
        "tensorflow": tf.__version__,
        "cpus": os.cpu_count(),
        "seconds": seconds,
        "p50_served_over_direct": served["p50_ms"] / direct["p50_ms"],
        "photos_a_second_batched_over_single": batched["photos_a_second"]
        / served["photos_a_second"],
        "rows": rows,
    }
    console.print(_make_table(rows))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}")
    partial.write_text(json.dumps(summary, indent=1) + "\n")
    partial.replace(out)
    console.print(f"Written to {out}", highlight=False)


def _make_table(rows: Sequence[Row]) -> Table:
    table = Table(*_COLUMNS.values())
    for row in rows:
        cells = (row[name] for name in _COLUMNS)
        table.add_row(
            *(
                f"{cell:.1f}" if isinstance(cell, float) else str(cell or "")
                for cell in cells
            )
        )
    return table


if __name__ == "__main__":
    try:
        typer.run(bench)
    except (ServingError, OSError) as error:
        sys.exit(f"bench: {error}")
