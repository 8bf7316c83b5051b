"""Runs a SavedModel's signatures in a process of its own.

The file is a script that needs TensorFlow alone: nothing of the captioner's
process can help the model along. Its standard input is a pickle of the folder
and of arrays by input name, by signature name; its standard output one of
arrays by output name, by signature name.
"""

import os
import pickle
import sys
from collections.abc import Mapping
from typing import Any


def replay(
    folder: str, inputs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Runs signatures in a TF1 session, the road that TensorFlow Serving takes.

    Args:
        folder: Folder of the SavedModel.
        inputs: Arrays by input name, by signature name.

    Returns:
        Arrays by output name, by signature name.
    """
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 - the model may use its ops

    outputs = {}
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
        for name, arrays in inputs.items():
            signature = meta.signature_def[name]
            outputs[name] = session.run(
                {k: v.name for k, v in signature.outputs.items()},
                {signature.inputs[k].name: v for k, v in arrays.items()},
            )
    return outputs


def main() -> None:
    """Answers one pickle."""
    # What the libraries print goes elsewhere than the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    folder, inputs = pickle.load(sys.stdin.buffer)
    pickle.dump(replay(folder, inputs), answer)
    answer.close()


if __name__ == "__main__":
    main()
