"""Compares the roads to an export: `python tests/cpp/check.py [FOLDER...]`.

A tiny captioner is exported; the C++ loader, `saved_model_cli run` and the
embedded server must give the captions of the one in memory. Each FOLDER is
that of a tensorflow package, such as `site-packages/tensorflow`, against which
the C++ loader is tried, too; the installed one comes first.
"""

import ast
import math
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

PROGRAM = Path(__file__).with_name("caption_photos.cc")
INSTALLED = Path(find_spec("tensorflow").origin).parent
CLI = (sys.executable, "-m", "tensorflow.python.tools.saved_model_cli")
FLAGS = (
    *("-std=c++17", "-O1", "-w", "-D_GLIBCXX_USE_CXX11_ABI=1"),
    "-DEIGEN_MAX_ALIGN_BYTES=64",
)
# Without the first, the linker drops the library that makes sessions.
LIBRARIES = (
    *("-Wl,--no-as-needed", "-l:libtensorflow_cc.so.2"),
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


def make_export(folder):
    """Exports a tiny captioner; returns the version, photos and captions."""
    import keras

    from bmt_keras.captioner import Captioner
    from bmt_keras.data.captions import read_captions
    from bmt_keras.data.tokenizer import CaptionTokenizer
    from bmt_keras.export import export_captioner
    from bmt_keras.models import build_image_tower, build_masked_lm
    from bmt_keras.sample import write_sample
    from bmt_keras.settings import Settings

    keras.utils.set_random_seed(0)
    write_sample(folder / "sample", num_train=8, num_val=4, seed=0)
    photos = read_captions(
        folder / "sample/captions_train.json", folder / "sample/images/train"
    )
    tokenizer = CaptionTokenizer.from_captions(
        caption for photo in photos for caption in photo.captions
    )
    settings = Settings().replace(
        text_hidden_dim=32, text_intermediate_dim=32, text_embedding_dim=16
    )
    tower = build_image_tower(settings)
    model = build_masked_lm(settings, tokenizer, image_tower=tower)
    captioner = Captioner(
        model, tokenizer, settings=settings, image_tower=tower
    )
    # The wheel's libraries lack tensorflow_text's ops, the server has them.
    version = export_captioner(captioner, folder / "bmt", text_inputs=False)
    paths = [photo.path for photo in photos]
    rows = [Row(c.text, c.score, "") for c in captioner.caption(paths)]
    return version, paths, rows


# === The roads ===


def run_by_cpp(tensorflow, version, photos):
    """Runs `LoadSavedModel` of a tensorflow package, in a program of ours."""
    if not (tensorflow / "libtensorflow_cc.so.2").is_file():
        raise CheckError(
            f"{tensorflow}: expected a tensorflow package with "
            "libtensorflow_cc.so.2, found none."
        )
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "caption_photos")
        command = ["g++", *FLAGS, f"-I{tensorflow / 'include'}", PROGRAM]
        command += [f"-L{tensorflow}", *LIBRARIES, f"-Wl,-rpath,{tensorflow}"]
        run(*command, "-o", program)
        lines = run(program, version, *photos).splitlines()
    rows = [line.split("\t") for line in lines]
    return [Row(text, float(score), error) for text, score, error in rows]


def run_by_cli(version, photos):
    """Runs TensorFlow's own command on a SavedModel."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "photos.npy")
        # Bytes of a fixed width; JPEG ends in none that are zero.
        np.save(inputs, np.array([photo.read_bytes() for photo in photos]))
        printed = run(
            *(*CLI, "run", "--dir", version, "--tag_set", "serve"),
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


def run_by_server(version, photos):
    """Asks the embedded server, which runs a TF1 session."""
    from bmt_keras.serving.client import CaptionClient
    from bmt_keras.serving.server import EmbeddedServer

    with (
        EmbeddedServer(version.parent, port=0) as server,
        CaptionClient(f"127.0.0.1:{server.port}") as client,
    ):
        results = client.caption(photos)
    return [Row(each.caption, each.score, each.error) for each in results]


def run(*command):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True
    )
    if done.returncode:
        raise CheckError(
            f"`{command[0]}` ended with code {done.returncode}:\n"
            f"{done.stderr[-2000:]}"
        )
    return done.stdout


# === The comparison ===


def compare(rows, expected):
    """Compares rows; the last one is that of a broken photo."""
    *good, broken = rows
    if len(good) != len(expected):
        raise CheckError(f"Expected {len(expected) + 1} rows, found {rows}.")
    for found, wanted in zip(good, expected, strict=True):
        close = math.isclose(found.score, wanted.score, abs_tol=1e-4)
        if not close or found._replace(score=wanted.score) != wanted:
            raise CheckError(f"Expected {wanted}, found {found}.")
    if broken.caption or "not a decodable image" not in broken.error:
        raise CheckError(
            f"Expected an error of a broken photo, found {broken}."
        )


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryDirectory() as name:
        version, photos, expected = make_export(Path(name))
        broken = Path(name, "broken.jpg")
        broken.write_bytes(photos[0].read_bytes()[:200])
        roads = {
            f"C++ loader of {package}": partial(run_by_cpp, package.resolve())
            for package in (INSTALLED, *map(Path, sys.argv[1:]))
        }
        roads["saved_model_cli run"] = run_by_cli
        roads["embedded server"] = run_by_server
        for road, run_by_road in roads.items():
            try:
                compare(run_by_road(version, [*photos, broken]), expected)
            except CheckError as error:
                sys.exit(f"check_cpp: {road}: {error}")
            print(f"{road}: as the captioner in memory")
    print(
        f"{len(expected)} captions, such as {expected[0].caption!r}, are equal "
        "by every road; the broken photo has its error"
    )


if __name__ == "__main__":
    main()
