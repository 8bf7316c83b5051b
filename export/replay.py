"""Runs a SavedModel's signatures in a process of its own.

The file is a script that needs TensorFlow alone: nothing of the captioner's
process can help the model along. It takes the folder as its argument, on its
standard input JSON of tensors by input name, by signature name, and writes
such JSON of outputs. A tensor is a TensorProto in base64.
"""

import base64
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

Arrays = Mapping[str, Any]


def pack(arrays: Mapping[str, Arrays]) -> bytes:
    """Writes arrays by name, by signature name, as JSON."""
    return json.dumps(
        {
            signature: {name: _write(value) for name, value in named.items()}
            for signature, named in arrays.items()
        }
    ).encode()


def unpack(content: bytes) -> dict[str, dict[str, Any]]:
    """Reads what `pack` wrote."""
    return {
        signature: {name: _read(text) for name, text in named.items()}
        for signature, named in json.loads(content).items()
    }


def replay(
    folder: str, inputs: Mapping[str, Arrays]
) -> dict[str, dict[str, Any]]:
    """Runs signatures in a TF1 session, the road that TensorFlow Serving takes.

    Args:
        folder: Folder of the SavedModel.
        inputs: Arrays by input name, by signature name.

    Returns:
        Arrays by output name, by signature name.
    """
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


def _write(value: Any) -> str:
    content: bytes = tf.make_tensor_proto(value).SerializeToString()
    return base64.b64encode(content).decode()


def _read(text: str) -> Any:
    return tf.make_ndarray(TensorProto.FromString(base64.b64decode(text)))


def main() -> None:
    """Answers one document."""
    # What the libraries print goes elsewhere than the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inputs = unpack(sys.stdin.buffer.read())
    answer.write(pack(replay(sys.argv[1], inputs)))
    answer.close()


if __name__ == "__main__":
    main()
