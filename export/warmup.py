"""Example inputs of every signature: a server warms up on them.

The export's own check runs them as well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from bmt_keras import contract
from bmt_keras.captioner import Captioner

_FILE = "tf_serving_warmup_requests"
# Sets of outputs that clients ask for, apart from all of them.
_FILTERS = {contract.SERVING_DEFAULT: ((contract.CAPTION,),)}


def make_example_inputs(
    captioner: Captioner, functions: Mapping[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """Makes inputs of traced signatures, good ones and bad.

    Returns:
        Arrays by input name, by signature name; (examples, ...) each. A
        signature answers the first example without an error.
    """
    image, noise = _make_jpeg(captioner), _make_jpeg(captioner, seed=0)
    broken = b"no image"
    length = captioner.settings.text.sequence_length
    shape = (2, *captioner.model.image_embedding_shape)
    embedding = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    embedding[0] = 1.0  # equal values make a short request
    masks = np.full((2, length), captioner.tokenizer.mask_token_id, np.int32)
    written = functions[contract.SERVING_DEFAULT](tf.constant([noise]))
    caption = written[contract.CAPTION].numpy()[0]
    one_each = {contract.IMAGE_BYTES: _strings(image, noise, broken)}
    with_values = {contract.IMAGE_BYTES: _strings(image, noise, image, broken)}
    inputs: dict[str, dict[str, np.ndarray]] = {
        contract.SERVING_DEFAULT: one_each,
        contract.EMBED_IMAGE: one_each,
        contract.CAPTION_WITH_LENGTH: {
            **with_values,
            contract.LENGTH: np.array([0, 1, length, 1], np.int32),
        },
        contract.CAPTION_EMBEDDING: {contract.IMAGE_EMBEDDING: embedding},
        contract.MASKED_LM: {
            contract.TOKEN_IDS: masks,
            contract.PADDING_MASK: np.ones_like(masks),
            contract.IMAGE_EMBEDDING: embedding,
        },
        contract.FILL_MASK: {
            **with_values,
            contract.TEXT: _strings(
                b"[MASK]", b"[MASK] " + caption, caption, b"[MASK]"
            ),
        },
        contract.SCORE_CAPTION: {
            **with_values,
            contract.TEXT: _strings(b"a", caption, b"", caption),
        },
    }
    return {name: inputs[name] for name in functions}


def write_warmup_requests(
    version_folder: Path, inputs: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Writes the warm-up file of a SavedModel: the first example of each input.

    The first call of each set of outputs builds an executor and takes many
    times longer than the next; the server makes it before its port opens.
    """
    folder = version_folder / "assets.extra"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / _FILE)) as writer:
        for signature, arrays in inputs.items():
            for outputs in ((), *_FILTERS.get(signature, ())):
                request = PredictRequest(output_filter=outputs)
                request.model_spec.name = contract.MODEL_NAME
                request.model_spec.signature_name = signature
                for name, values in arrays.items():
                    request.inputs[name].CopyFrom(_to_proto(values[:1]))
                log = PredictionLog(predict_log=PredictLog(request=request))
                writer.write(log.SerializeToString())


def _to_proto(values: np.ndarray) -> Any:
    first = values.flat[0]
    # Equal numbers are written once; texts have no such form.
    if values.dtype != object and np.all(values == first):
        return tf.make_tensor_proto(first, shape=values.shape)
    return tf.make_tensor_proto(values)


def _make_jpeg(captioner: Captioner, *, seed: int | None = None) -> bytes:
    # Of the captioner's size, grey or with coloured squares.
    height, width, _ = captioner.graph.pixels_shape
    squares = np.full((4, 4, 3), 127, np.uint8)
    if seed is not None:
        rng = np.random.default_rng(seed)
        squares = rng.integers(0, 256, squares.shape, np.uint8)
    pixels = tf.image.resize(squares, (height, width), "nearest")
    jpeg: bytes = tf.io.encode_jpeg(tf.cast(pixels, tf.uint8)).numpy()
    return jpeg


def _strings(*values: bytes) -> np.ndarray:
    return np.array(values, object)
