"""Requests that a server runs when it loads the model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from bmt_keras import contract

_FILE = "tf_serving_warmup_requests"
# Sets of outputs that clients ask for, besides all of them.
_FILTERS = {contract.SERVING_DEFAULT: ((contract.CAPTION,),)}


def write_warmup_requests(
    version_folder: Path,
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    model_name: str,
) -> None:
    """Writes the warm-up file of a SavedModel.

    The first call of each set of outputs builds an executor and takes many
    times longer than the next; the server makes it before its port opens.

    Args:
        version_folder: Folder of the SavedModel.
        inputs: Arrays by input name, by signature name; their first rows are
            taken.
        model_name: Name of the model in the requests.
    """
    folder = version_folder / "assets.extra"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / _FILE)) as writer:
        for signature, arrays in inputs.items():
            for outputs in ((), *_FILTERS.get(signature, ())):
                writer.write(_record(signature, arrays, outputs, model_name))


def _tensor_proto(values: np.ndarray) -> TensorProto:
    """Values as a request has them, once where all are the same."""
    first = values.flat[0]
    if values.dtype != object and np.all(values == first):
        return tf.make_tensor_proto(first, shape=values.shape)
    return tf.make_tensor_proto(values)


def _record(
    signature: str,
    arrays: Mapping[str, np.ndarray],
    outputs: tuple[str, ...],
    model_name: str,
) -> bytes:
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, values in arrays.items():
        request.inputs[name].CopyFrom(_tensor_proto(values[:1]))
    log = prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    )
    content: bytes = log.SerializeToString()
    return content
