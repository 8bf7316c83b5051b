"""The roads by which an export can be run: C++, the command line, a server."""

import ast
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

PROGRAM = Path(__file__).with_name("caption_photos.cc")
CLI = Path(sysconfig.get_path("scripts"), "saved_model_cli")
FLAGS = (
    *("-std=c++17", "-O1", "-w", "-D_GLIBCXX_USE_CXX11_ABI=1"),
    "-DEIGEN_MAX_ALIGN_BYTES=64",
)
# Without the first, the linker drops the library that makes sessions.
LIBRARIES = (
    "-Wl,--no-as-needed",
    "-l:libtensorflow_cc.so.2",
    "-l:libtensorflow_framework.so.2",
)
BYTES = re.compile(r"""b'(?:[^'\\]|\\.)*'|b"(?:[^"\\]|\\.)*\"""")


class CheckError(Exception):
    """A road does not give the captioner's captions."""


class Row(NamedTuple):
    """What `serving_default` answers for a photo."""

    caption: str
    score: float
    error: str


def run_by_cpp(
    tensorflow: Path, version: Path, photos: Sequence[Path]
) -> list[Row]:
    """Runs `LoadSavedModel` of a tensorflow package, in a program of ours."""
    if not (tensorflow / "libtensorflow_cc.so.2").is_file():
        raise CheckError(
            f"{tensorflow}: expected a tensorflow package with "
            "libtensorflow_cc.so.2, found none."
        )
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "caption_photos")
        command = ["g++", *FLAGS, f"-I{tensorflow / 'include'}", str(PROGRAM)]
        command += [f"-L{tensorflow}", *LIBRARIES, f"-Wl,-rpath,{tensorflow}"]
        _run(*command, "-o", str(program))
        lines = _run(*map(str, (program, version, *photos))).splitlines()
    rows = [line.split("\t") for line in lines]
    return [Row(text, float(score), error) for text, score, error in rows]


def run_by_cli(version: Path, photos: Sequence[Path]) -> list[Row]:
    """Runs TensorFlow's own command on a SavedModel."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "photos.npy")
        # Bytes of a fixed width; JPEG ends in none that are zero.
        np.save(inputs, np.array([photo.read_bytes() for photo in photos]))
        printed = _run(
            *(str(CLI), "run", "--dir", str(version), "--tag_set", "serve"),
            *("--signature_def", "serving_default"),
            *("--inputs", f"image_bytes={inputs}"),
        )
    parts = re.split(r"Result for output key (\w+):", printed)
    results = dict(zip(parts[1::2], parts[2::2], strict=True))
    captions, errors = (
        [ast.literal_eval(each).decode() for each in BYTES.findall(text)]
        for text in (results["caption"], results["error"])
    )
    scores = map(float, results["score"].strip().strip("[]").split())
    return [Row(*row) for row in zip(captions, scores, errors, strict=True)]


def run_by_server(version: Path, photos: Sequence[Path]) -> list[Row]:
    """Asks the embedded server, which runs a TF1 session."""
    from bmt_keras.serving.client import CaptionClient
    from bmt_keras.serving.server import EmbeddedServer

    with (
        EmbeddedServer(version.parent, port=0) as server,
        CaptionClient(f"127.0.0.1:{server.port}") as client,
    ):
        results = client.caption(photos)
    return [Row(each.caption, each.score, each.error) for each in results]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CheckError(
            f"`{command[0]}` ended with code {done.returncode}:\n"
            f"{done.stderr[-2000:]}"
        )
    return done.stdout
