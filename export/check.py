"""What was written is loaded again and compared, before it is published."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras import contract
from bmt_keras.captioner import Captioner

from .warmup import example_photo

_TOLERANCE = 1e-4


def check_signatures(
    version_folder: Path, functions: dict[str, Any], captioner: Captioner
) -> None:
    """Compares every signature of a SavedModel with the traced functions.

    A TF1 session loads the folder, as TensorFlow Serving does: a model may
    load in Python and still fail there.

    Args:
        version_folder: Folder of the SavedModel.
        functions: The traced functions by signature name.
        captioner: Tells the shapes of the inputs.

    Raises:
        RuntimeError: An output differs; the message names it.
    """
    feeds = _example_inputs(captioner)
    # Before the session: inside it nothing runs eagerly.
    expected = {
        name: _call(function, feeds) for name, function in functions.items()
    }
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], str(version_folder)
        )
        for name, outputs in expected.items():
            signature = meta.signature_def[name]
            found = session.run(
                {k: v.name for k, v in signature.outputs.items()},
                {v.name: feeds[k] for k, v in signature.inputs.items()},
            )
            _compare(name, found, outputs)


def _example_inputs(captioner: Captioner) -> dict[str, np.ndarray]:
    length = captioner.settings.max_length
    token_ids = np.full((2, length), captioner.tokenizer.mask_id, np.int32)
    shape = (2, *captioner.graph.embedding_shape)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return {
        contract.IMAGE_BYTES: np.array(
            [example_photo(captioner), b"no photo"], object
        ),
        contract.IMAGE_EMBEDDING: noise,
        contract.TOKEN_IDS: token_ids,
        contract.PADDING_MASK: np.ones((2, length), np.int32),
    }


def _call(function: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    specs, _ = function.structured_input_signature
    arguments = [tf.constant(feeds[spec.name]) for spec in specs]
    outputs = function(*arguments)
    return {name: value.numpy() for name, value in outputs.items()}


def _compare(
    signature: str,
    found: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
) -> None:
    for name, value in expected.items():
        if value.dtype.kind == "f":
            same = np.allclose(found[name], value, atol=_TOLERANCE)
        else:
            same = bool(np.all(found[name] == value))
        if not same:
            raise RuntimeError(
                f"The exported signature {signature!r} gives another "
                f"{name!r} than the model in memory: nothing was published."
            )
