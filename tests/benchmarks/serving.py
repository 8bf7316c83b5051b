"""What does serving cost, compared with the direct call?

python tests/benchmarks/serving.py --models models/bmt --out bench.json a.jpg
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import corpus
import grpc
import measure
import numpy as np
import tensorflow as tf
from measure import Case, Row
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

Call = Callable[[list[bytes]], Sequence[Any]]

DIRECT, SERVED, LARGE = "direct", "served", "served, many images per call"
ROWS = {
    "served_over_direct": Row(DIRECT, {DIRECT: 1}, {SERVED: 1}),
    "images_per_second_batched_over_single": Row(
        LARGE, {LARGE: 1}, {SERVED: 1}
    ),
}
# `bmt serve`, but it ends with the benchmark, even with a killed one.
_SERVER = """
import os, measure
measure.end_with(os.getppid())
from bmt_keras.commands import main
main()
"""


def parse(
    description: str | None,
    arguments: Sequence[str] | None,
    **options: tuple[Any, str],
) -> tuple[argparse.Namespace, Path, list[bytes]]:
    """Parses options, own ones by default and help; finds model and images."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("photos", nargs="*", type=Path, help="made ones by default")
    add("--models", type=Path, default=Path("models/bmt"))
    add("--out", type=Path, required=True, help="JSON file to write")
    for name, (default, text) in options.items():
        add(f"--{name}", type=type(default), default=default, help=text)
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    images = [path.read_bytes() for path in given.photos]
    images = images or [corpus.make_image(rng) for _ in range(8)]
    return given, find_latest_version(given.models), images


def find_latest_version(models: Path) -> Path:
    versions = [each for each in models.glob("*") if each.name.isdigit()]
    if not versions:
        sys.exit(
            f"{models}: expected a folder named by a version number, found "
            "none; make export writes one."
        )
    return max(versions, key=lambda each: int(each.name))


@contextmanager
def serve(version: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Serves a version; gives a stub and what publishes it once more."""
    with tempfile.TemporaryDirectory() as name:
        numbers = itertools.count(1)

        def add_version() -> None:
            link = Path(name) / str(next(numbers))
            link.symlink_to(version.absolute())

        add_version()
        command = [sys.executable, "-c", _SERVER, "serve", "--models", name]
        with subprocess.Popen(
            [*command, "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            # Where `measure` is.
            cwd=Path(__file__).parent,
        ) as process:
            try:
                found = re.search(r"(\S+:\d+)\n", process.stdout.readline())
                if found is None:
                    sys.exit("The server ended at once; its error is above.")
                with grpc.insecure_channel(found[1]) as channel:
                    yield PredictionServiceStub(channel), add_version
            finally:
                process.terminate()


def ask(stub: Any, images: Sequence[bytes]) -> tuple[list[str], list[str], int]:
    """The images' captions and errors, and the version that answered."""
    request = PredictRequest()
    request.model_spec.name = "bmt"
    request.inputs["image_bytes"].CopyFrom(
        tf.make_tensor_proto(list(images), tf.string)
    )
    response = stub.Predict(request, timeout=120)
    captions, errors = (
        [text.decode() for text in response.outputs[name].string_val]
        for name in ("caption", "error")
    )
    return captions, errors, response.model_spec.version.value


def call_directly(version: Path) -> Call:
    """Runs the default signature in this process; gives the errors."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    load = tf.compat.v1.saved_model.load
    loaded = load(session, ["serve"], str(version))
    signature = loaded.signature_def["serving_default"]
    outputs = {name: info.name for name, info in signature.outputs.items()}
    image_bytes = signature.inputs["image_bytes"].name
    return lambda images: session.run(outputs, {image_bytes: images})["error"]


def _repeat(call: Call, images: Sequence[bytes], batch: int = 1) -> Case:
    """Calls with one image after another, `batch` times in a call."""
    turns = itertools.cycle(images)

    def run() -> None:
        if any(call([next(turns)] * batch)):
            raise ValueError("An image has an error; give good ones.")

    return Case(run, items=batch)


def main(arguments: Sequence[str] | None = None) -> None:
    options, version, images = parse(
        __doc__,
        arguments,
        rounds=(50, "calls of each kind, in turns"),
        batch=(16, "images of a large call"),
    )
    rounds, batch = options.rounds, options.batch
    with serve(version) as (stub, _):
        cases = {
            DIRECT: _repeat(call_directly(version), images),
            SERVED: _repeat(lambda some: ask(stub, some)[1], images),
            LARGE: _repeat(lambda some: ask(stub, some)[1], images, batch),
        }
        times = measure.take_turns(cases, rounds=rounds)
    rows = {name: measure.compare(row, times) for name, row in ROWS.items()}
    print(*map(measure.format_row, rows.values()), sep="\n")
    results = {**measure.describe_machine(), "model": str(version)}
    results |= {"rounds": rounds, "batch": batch, **rows}
    measure.write_json(options.out, results)


if __name__ == "__main__":
    main()
