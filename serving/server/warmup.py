"""Warm-up: recorded requests run before a version is served."""

import logging
from contextlib import suppress
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from .predict import predict
from .run_pool import Limits
from .servable import Servable
from .status import to_status

# An uncompressed TFRecord file of PredictionLog, as in TensorFlow Serving.
_FILE = Path("assets.extra", "tf_serving_warmup_requests")
_MAX_RECORDS = 1000

_LOGGER = logging.getLogger(__name__)


def warm_up(servable: Servable, path: Path) -> None:
    """Runs the Predict requests recorded in a version's folder, if any.

    The first run of a signature builds its executor and can take seconds;
    after a warm-up no client waits for that. Other kinds than Predict are left
    out. A request that fails is a ValueError: the model is not to be served.
    """
    path = path / _FILE
    if not path.exists():
        return
    for number, record in enumerate(_read_records(path), start=1):
        _run_record(servable, record, f"record {number} of {path}")
    _LOGGER.info("Ran the warm-up requests of %s", path)


def _read_records(path: Path) -> list[bytes]:
    # One more than allowed, however long the file is.
    dataset = tf.data.TFRecordDataset(str(path)).take(_MAX_RECORDS + 1)
    try:
        records = list(dataset.as_numpy_iterator())
    except tf.errors.OpError as error:
        raise ValueError(
            "A warm-up file must be an uncompressed TFRecord file. Cannot read "
            f"{path}: {error.message}"
        ) from error
    if len(records) > _MAX_RECORDS:
        raise ValueError(
            f"A warm-up file must hold at most {_MAX_RECORDS} records. Found "
            f"more in {path}"
        )
    return records


def _run_record(servable: Servable, record: bytes, where: str) -> None:
    log = PredictionLog()
    # An empty record parses as a message of no kind.
    with suppress(DecodeError):
        log.ParseFromString(record)
    kind = log.WhichOneof("log_type")
    if kind is None:
        raise ValueError(
            f"A warm-up record must be a PredictionLog. Found: {where}, "
            f"{len(record)} bytes of something else"
        )
    if kind != "predict_log":
        _LOGGER.warning("Left out %s: it is a %s", where, kind)
        return
    try:
        predict(servable, log.predict_log.request, Limits())
    except Exception as error:
        raise ValueError(
            f"Every warm-up request must succeed. Failed: {where} with "
            f"{to_status(error)}"
        ) from error
