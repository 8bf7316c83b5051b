"""What was written is run in a fresh process before it is published.

The file is the fresh process' script too, and needs TensorFlow alone: nothing
of the captioner's process can help the model along. As a script it takes the
SavedModel's folder as its argument, and pickled arrays by input name, by
signature, on its input; it writes such arrays of outputs.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

_TOLERANCE = 1e-4
_MAX_LAST_WORDS = 2000  # characters of what a failed process wrote

Arrays = Mapping[str, np.ndarray]


def check_signatures(
    version_folder: Path,
    functions: Mapping[str, Any],
    inputs: Mapping[str, Arrays],
) -> None:
    """Compares every signature of a SavedModel with the traced functions.

    A fresh process loads the folder into a TF1 session, as TensorFlow Serving
    does: a model may load in Python, or where its captioner is, and fail there.

    Args:
        version_folder: Folder of the SavedModel.
        functions: The traced functions by signature name.
        inputs: Arrays by input name, by signature name.

    Raises:
        RuntimeError: The folder does not load, or an output is missing, one
            too many, or differs; the message names it.
    """
    found = _run_in_fresh_process(version_folder, inputs)
    for signature, function in functions.items():
        tensors = {k: tf.constant(v) for k, v in inputs[signature].items()}
        expected = {k: v.numpy() for k, v in function(**tensors).items()}
        if found[signature].keys() != expected.keys():
            raise RuntimeError(
                f"The exported signature {signature!r} has the outputs "
                f"{sorted(found[signature])}, the model in memory "
                f"{sorted(expected)}: nothing was published."
            )
        for name, value in expected.items():
            if not _is_same(found[signature][name], value):
                raise RuntimeError(
                    f"The exported signature {signature!r} gives another "
                    f"{name!r} than the model in memory: nothing was published."
                )


def _is_same(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind == "f":
        return np.allclose(found, expected, atol=_TOLERANCE)
    return bool(np.all(found == expected))


# === The fresh process ===


def _run_in_fresh_process(
    version_folder: Path, inputs: Mapping[str, Arrays]
) -> dict[str, dict[str, np.ndarray]]:
    # Not -m: importing the package would import the captioner's code.
    done = subprocess.run(
        [sys.executable, "-P", __file__, str(version_folder)],
        input=pickle.dumps(inputs),
        capture_output=True,
        # A processor, whatever the captioner runs on: its memory may be taken.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-_MAX_LAST_WORDS:]
        raise RuntimeError(
            "The exported model does not run in a process of its own: nothing "
            f"was published. That process ended with:\n{words}"
        )
    outputs: dict[str, dict[str, np.ndarray]] = pickle.loads(done.stdout)
    return outputs


def _main(folder: str) -> None:
    # What libraries print on the output stream must not mix with the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import tensorflow_text  # noqa: F401 - the model may use its ops

    inputs: Mapping[str, Arrays] = pickle.load(sys.stdin.buffer)
    outputs = {}
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
        for name, arrays in inputs.items():
            signature = meta.signature_def[name]
            outputs[name] = session.run(
                {k: v.name for k, v in signature.outputs.items()},
                {signature.inputs[k].name: v for k, v in arrays.items()},
            )
    with answer:
        pickle.dump(outputs, answer)


if __name__ == "__main__":
    _main(sys.argv[1])
