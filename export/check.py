"""What was written is loaded again and compared, before it is published."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .replay import pack, unpack

_TOLERANCE = 1e-4
_SCRIPT = Path(__file__).with_name("replay.py")
_TOLD = 2000  # characters of another process' last words

Arrays = Mapping[str, np.ndarray]


def check_signatures(
    version_folder: Path,
    functions: Mapping[str, Any],
    inputs: Mapping[str, Arrays],
) -> None:
    """Compares every signature of a SavedModel with the traced functions.

    A fresh process loads the folder into a TF1 session, as TensorFlow Serving
    does: a model may load in Python, or beside its captioner, and fail there.

    Args:
        version_folder: Folder of the SavedModel.
        functions: The traced functions by signature name.
        inputs: Arrays by input name, by signature name.

    Raises:
        RuntimeError: The folder does not load, a signature is missing or one
            too many, or an output differs; the message names it.
    """
    found = _replay(version_folder, inputs)
    for name, function in functions.items():
        expected = _call(function, inputs[name])
        if found[name].keys() != expected.keys():
            raise RuntimeError(
                f"The exported signature {name!r} has the outputs "
                f"{sorted(found[name])}, the model in memory "
                f"{sorted(expected)}: nothing was published."
            )
        _compare(name, found[name], expected)


def _replay(
    version_folder: Path, inputs: Mapping[str, Arrays]
) -> dict[str, dict[str, np.ndarray]]:
    # A processor, whatever the captioner runs on: its memory may be taken.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    # Not -m: importing the package would import the captioner's code.
    done = subprocess.run(
        [sys.executable, "-P", str(_SCRIPT), str(version_folder)],
        input=pack(inputs),
        capture_output=True,
        env=environment,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-_TOLD:]
        raise RuntimeError(
            "The exported model does not run in a process of its own: nothing "
            f"was published. That process ended with:\n{words}"
        )
    return unpack(done.stdout)


def _call(function: Any, arrays: Arrays) -> dict[str, np.ndarray]:
    specs, _ = function.structured_input_signature
    arguments = [tf.constant(arrays[spec.name]) for spec in specs]
    outputs = function(*arguments)
    return {name: value.numpy() for name, value in outputs.items()}


def _compare(signature: str, found: Arrays, expected: Arrays) -> None:
    for name, value in expected.items():
        same = found[name].shape == value.shape
        if same and value.dtype.kind == "f":
            same = np.allclose(found[name], value, atol=_TOLERANCE)
        elif same:
            same = bool(np.all(found[name] == value))
        if not same:
            raise RuntimeError(
                f"The exported signature {signature!r} gives another "
                f"{name!r} than the model in memory: nothing was published."
            )
