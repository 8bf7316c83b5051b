"""What was written is run in a fresh process before it is published.

The file is the fresh process' script too, and needs TensorFlow alone: nothing
of the captioner's process can help the model along. As a script it takes the
SavedModel's folder as its argument and, pickled on its input, the inputs and
the expected outputs of each signature.
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


def check_signatures(
    version_folder: Path,
    functions: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Compares every signature of a SavedModel with the traced functions.

    A fresh process loads the folder into a TF1 session, as TensorFlow Serving
    does: a model may load in Python, or where its captioner is, and fail there.
    `functions` are the traced ones, and `inputs` arrays by input name, both by
    signature name.

    Raises:
        RuntimeError: It does not load, or differs in the output that it names.
    """
    cases = {}
    for signature, arrays in inputs.items():
        tensors = {name: tf.constant(value) for name, value in arrays.items()}
        outputs = functions[signature](**tensors)
        expected = {name: value.numpy() for name, value in outputs.items()}
        cases[signature] = arrays, expected
    done = subprocess.run(
        # Not -m: importing the package would import the captioner's code.
        [sys.executable, "-P", __file__, str(version_folder)],
        input=pickle.dumps(cases),
        capture_output=True,
        # A processor, whatever the captioner runs on: its memory may be taken.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-_MAX_LAST_WORDS:]
        raise RuntimeError(
            "The exported model does not run in a process of its own as the "
            "one in memory does: nothing was published. That process ended "
            f"with:\n{words}"
        )


# === The fresh process ===


def _main(folder: str) -> None:
    import tensorflow_text  # noqa: F401 - the model may use its ops

    cases = pickle.load(sys.stdin.buffer)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
        for name, (arrays, expected) in cases.items():
            signature = meta.signature_def[name]
            found = session.run(
                {k: v.name for k, v in signature.outputs.items()},
                {signature.inputs[k].name: v for k, v in arrays.items()},
            )
            for output, value in expected.items():
                if not _is_same(found[output], value):
                    sys.exit(
                        f"The exported signature {name!r} gives another "
                        f"{output!r} than the model in memory."
                    )


def _is_same(found: np.ndarray, expected: np.ndarray) -> bool:
    if expected.dtype.kind != "f":
        return np.array_equal(found, expected)
    is_shaped_alike = found.shape == expected.shape
    return is_shaped_alike and np.allclose(found, expected, atol=_TOLERANCE)


if __name__ == "__main__":
    _main(sys.argv[1])
