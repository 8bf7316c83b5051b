"""Example inputs of every signature, which the export's own check runs.

A server warms up on those of captions.
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

_ASKED = (contract.SERVING_DEFAULT, contract.CAPTION_WITH_LENGTH)


def make_example_inputs(
    captioner: Captioner, functions: Mapping[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """Makes inputs of traced signatures, good ones and bad.

    Returns:
        Arrays by input name, by signature name; (examples, ...) each. A
        signature answers the first example without an error.
    """
    image, other = _make_jpeg(captioner, 0), _make_jpeg(captioner, 1)
    broken = b"no image"
    length = captioner.settings.text.sequence_length
    shape = (2, *captioner.model.image_embedding_shape)
    embedding = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    masks = np.full((2, length), captioner.tokenizer.mask_token_id, np.int32)
    written = functions[contract.SERVING_DEFAULT](tf.constant([other]))
    caption = written[contract.CAPTION].numpy()[0]
    one_each = {contract.IMAGE_BYTES: _strings(image, other, broken)}
    with_values = {contract.IMAGE_BYTES: _strings(image, other, image, broken)}
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
    """Writes the warm-up file of a SavedModel: a request for captions each way.

    The first call of each set of outputs builds an executor and takes many
    times longer than the next; the server makes it before its port opens. All
    signatures would take more than twice the time, and few clients ask them.
    """
    folder = version_folder / "assets.extra"
    folder.mkdir()
    path = folder / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature in _ASKED:
            request = PredictRequest(
                model_spec={
                    "name": contract.MODEL_NAME,
                    "signature_name": signature,
                },
                inputs={
                    name: tf.make_tensor_proto(values[:1])
                    for name, values in inputs[signature].items()
                },
            )
            log = PredictionLog(predict_log=PredictLog(request=request))
            writer.write(log.SerializeToString())


def _make_jpeg(captioner: Captioner, seed: int) -> bytes:
    # Coloured squares, of the captioner's size.
    height, width, _ = captioner.graph.pixels_shape
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, 256, (4, 4, 3), np.uint8)
    pixels = tf.image.resize(squares, (height, width), "nearest")
    jpeg: bytes = tf.io.encode_jpeg(tf.cast(pixels, tf.uint8)).numpy()
    return jpeg


def _strings(*values: bytes) -> np.ndarray:
    return np.array(values, object)
