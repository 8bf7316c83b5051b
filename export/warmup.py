"""Requests that a server runs when it loads the model."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from bmt_keras import contract
from bmt_keras.captioner import Captioner

_FILE = "tf_serving_warmup_requests"


def example_photo(captioner: Captioner) -> bytes:
    """A grey JPEG of the captioner's photo size."""
    settings = captioner.settings
    shape = (settings.image_height, settings.image_width, 3)
    jpeg: bytes = tf.io.encode_jpeg(np.full(shape, 127, np.uint8)).numpy()
    return jpeg


def write_warmup_requests(
    version_folder: Path, captioner: Captioner, model_name: str
) -> None:
    """Writes the warm-up file of a SavedModel.

    The first call of each set of outputs builds an executor and takes many
    times longer than the next; the server makes it before its port opens.

    Args:
        version_folder: Folder of the SavedModel.
        captioner: Tells the photo's size.
        model_name: Name of the model in the requests.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    folder = version_folder / "assets.extra"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / _FILE)) as writer:
        for signature in (contract.SERVING_DEFAULT, contract.EMBED_IMAGE):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            request.inputs[contract.IMAGE_BYTES].CopyFrom(
                tf.make_tensor_proto([example_photo(captioner)])
            )
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
