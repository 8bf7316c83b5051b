"""A server in a process of its own, and requests to it."""

import argparse
import itertools
import os
import re
import signal
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
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

_CALL_SECONDS = 120.0


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of both scripts that call a server."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("photos", nargs="*", type=Path, help="made ones by default")
    add("--models", type=Path, default=Path("models/bmt"))
    add("--out", type=Path, required=True, help="JSON file to write")
    return parser


# === The server ===


def find_latest_version(models: Path) -> Path:
    folders = models.iterdir() if models.is_dir() else []
    versions = [each for each in folders if each.name.isdigit()]
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
        command = [sys.executable, __file__, "serve", "--models", name]
        with subprocess.Popen(
            [*command, "--port", "0"], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                with grpc.insecure_channel(_read_address(process)) as channel:
                    yield PredictionServiceStub(channel), add_version
            finally:
                process.send_signal(signal.SIGTERM)


def _read_address(process: subprocess.Popen[str]) -> str:
    for line in process.stdout or ():
        if found := re.search(r"(\S+:\d+)$", line):
            return found[1]
    sys.exit("The server ended before it was up; its error is above.")


# === Requests ===


def read_images(paths: Sequence[Path]) -> list[bytes]:
    """Encoded images: those of the files, or made ones if there are none."""
    if paths:
        return [path.read_bytes() for path in paths]
    rng = np.random.default_rng(0)
    return [corpus.make_image(rng) for _ in range(8)]


def ask(stub: Any, images: Sequence[bytes]) -> tuple[list[str], list[str], int]:
    """The images' captions and errors, and the version that answered."""
    request = PredictRequest()
    request.model_spec.name = "bmt"
    request.inputs["image_bytes"].CopyFrom(
        tf.make_tensor_proto(list(images), tf.string)
    )
    response = stub.Predict(request, timeout=_CALL_SECONDS)
    captions, errors = (
        [text.decode() for text in response.outputs[name].string_val]
        for name in ("caption", "error")
    )
    return captions, errors, response.model_spec.version.value


if __name__ == "__main__":
    # `bmt serve`, but it ends with the benchmark, even with a killed one.
    measure.end_with(os.getppid())
    from bmt_keras.commands import main

    main()
