"""A minute of load on a server, with corrupt photos and a reload in it.

`python -m bmt_keras.serving.stress --models models/bmt --photo beach.jpg`
"""

import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from rich.console import Console
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras import contract

from .errors import ServingError
from .figures import describe_run, make_table, write_figures
from .load import offer_load
from .photo_requests import ask, make_photo_request, read_texts
from .server.version_folders import VersionFolder, find_latest_version
from .server_process import serve_in_own_process

_EVERY = 10  # One photo in so many is corrupt.
_PROBE_SECONDS = 5.0
# Of what a closed loop gets answered: full, but not beyond it.
_SHARE = 0.75
_MOST_REASONS = 5
_COLUMNS = {
    "photos": "photos",
    "asked": "asked",
    "answered": "answered as they should",
    "failed": "failed",
}


class StressTest:
    """Asks a server for photos, good and corrupt ones, and judges its answers.

    A good photo must get the caption that it had before the load, a corrupt one
    an empty caption and an error that tells its own number of bytes: no two
    corrupt photos of a run have the same.

    Args:
        stub: PredictionServiceStub of the server.
        photos: encoded photos; calls take one after the other.

    Attributes:
        counts: Counter of (kind of photo, whether its answer was right).
        versions: Counter of the versions that answered.
        reasons: the first failures, in words.
    """

    def __init__(self, stub: Any, photos: Sequence[bytes]) -> None:
        self._stub = stub
        self._photos = photos
        self._lock = threading.Lock()
        self._expected = [self._ask(photo)[0] for photo in photos]
        self.counts: Counter[tuple[str, bool]] = Counter()
        self.versions: Counter[int] = Counter()
        self.reasons: list[str] = []

    def call(self, number: int) -> bool:
        """Asks for one photo.

        Args:
            number: int. The call's number; every tenth photo is corrupt.

        Returns:
            bool, whether the answer was right.
        """
        which = number % len(self._photos)
        photo = self._photos[which]
        is_corrupt = number % _EVERY == _EVERY - 1
        if is_corrupt:
            photo = _spoil(photo, number)
        try:
            caption, error, version = self._ask(photo)
        except grpc.RpcError as failure:
            told = f"{failure.code().name}: {failure.details()}"
            return self._judge(is_corrupt, False, told)
        with self._lock:
            self.versions[version] += 1
        if is_corrupt:
            right = not caption and f"received {len(photo)} bytes" in error
        else:
            right = not error and caption == self._expected[which]
        told = f"caption {caption!r}, error {error!r}"
        return self._judge(is_corrupt, right, told)

    def _ask(self, photo: bytes) -> tuple[str, str, int]:
        response = ask(self._stub, make_photo_request([photo]))
        (caption,) = read_texts(response, contract.CAPTION)
        (error,) = read_texts(response, contract.ERROR)
        return caption, error, response.model_spec.version.value

    def _judge(self, is_corrupt: bool, right: bool, told: str) -> bool:
        kind = "corrupt" if is_corrupt else "good"
        with self._lock:
            self.counts[kind, right] += 1
            if not right and len(self.reasons) < _MOST_REASONS:
                self.reasons.append(f"a {kind} photo: {told}")
        return right


def run_stress_test(
    folder: VersionFolder,
    photos: Sequence[bytes],
    *,
    seconds: float,
    concurrency: int,
    rate: float | None = None,
) -> dict[str, Any]:
    """Loads a server of its own with calls; halfway a new version comes.

    Args:
        folder: VersionFolder of the captioner; the new version is the same.
        photos: encoded photos.
        seconds: float. How long calls are begun; longer, where the new
            version takes more than half of them to come.
        concurrency: int. The most calls under way at a time.
        rate: float. Calls a second, at random times that do not wait for
            answers; None for three quarters of what a closed loop got
            answered beforehand.

    Returns:
        dict, ready for JSON: `rows` with counts of good and corrupt photos,
        `versions` with the number of answers of each, `reasons` of failures,
        latencies, and `passed`: whether no answer was wrong and both versions
        answered.

    Raises:
        ServingError: If the server does not come up or no call succeeds.
    """
    with (
        serve_in_own_process(folder) as (address, add_version),
        grpc.insecure_channel(address) as channel,
    ):
        stub = PredictionServiceStub(channel)
        if rate is None:
            probe = offer_load(
                StressTest(stub, photos).call,
                seconds=_PROBE_SECONDS,
                concurrency=concurrency,
            )
            rate = _SHARE * probe.calls_a_second
        test = StressTest(stub, photos)
        measured = offer_load(
            test.call,
            seconds=seconds,
            concurrency=concurrency,
            rate=rate,
            halfway=add_version,
            go_on_while=lambda: len(test.versions) < 2,
        )
    rows = [
        {
            "photos": kind,
            "asked": test.counts[kind, True] + test.counts[kind, False],
            "answered": test.counts[kind, True],
            "failed": test.counts[kind, False],
        }
        for kind in ("good", "corrupt")
    ]
    return {
        **describe_run(folder.path),
        "seconds": seconds,
        "concurrency": concurrency,
        "rate": rate,
        **asdict(measured),
        "rows": rows,
        "versions": {str(k): n for k, n in sorted(test.versions.items())},
        "reasons": test.reasons,
        "passed": not measured.failures and len(test.versions) == 2,
    }


def _spoil(photo: bytes, number: int) -> bytes:
    """Half a photo with a broken head, of a length that is its own."""
    return b"BAD" + photo[3 : len(photo) // 2] + b"\0" * number


# === The command ===


def stress(
    photo: Annotated[list[Path], typer.Option(help="A photo; repeatable.")],
    models: Annotated[
        Path, typer.Option(help="Folder of the model's numbered versions.")
    ] = Path("models/bmt"),
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path(
        "runs/load-serving.json"
    ),
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Length of the load.")
    ] = 60.0,
    concurrency: Annotated[
        int, typer.Option(min=1, help="The most calls under way.")
    ] = 16,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Calls a second; by default three quarters of what the "
            "server answers.",
        ),
    ] = None,
) -> None:
    """Load a server with photos, some corrupt, and reload it halfway."""
    figures = run_stress_test(
        find_latest_version(models),
        [path.read_bytes() for path in photo],
        seconds=seconds,
        concurrency=concurrency,
        rate=rate,
    )
    write_figures(out, figures)
    console = Console(highlight=False)
    console.print(make_table(_COLUMNS, figures["rows"]))
    console.print(
        "p50 {p50_ms:.1f} ms, p95 {p95_ms:.1f} ms, p99 {p99_ms:.1f} ms at "
        "{rate:.2f} calls/s for {took_s:.0f} s".format(**figures)
    )
    told = (f"{count} by {k}" for k, count in figures["versions"].items())
    console.print(f"Answers of the versions: {', '.join(told)}")
    for reason in figures["reasons"]:
        console.print(f"Failed: {reason}")
    console.print(f"Written to {out}")
    if not figures["passed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    try:
        typer.run(stress)
    except (ServingError, OSError) as error:
        sys.exit(f"stress: {error}")
