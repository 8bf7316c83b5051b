"""Warm-up: recorded requests run before a version is served."""

import logging
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from ..errors import ServingError
from .predict import predict
from .servable import Servable
from .status import StatusError
from .version_folders import VersionFolder

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000

_LOGGER = logging.getLogger(__name__)


def warm_up(servable: Servable, folder: VersionFolder) -> int:
    """Runs a version's recorded Predict requests, if it carries any.

    The first run of a signature builds its executor and can take seconds;
    after a warm-up no client waits for that. Requests of other kinds, which
    TensorFlow Serving alone answers, are left out.

    Args:
        servable: The version, loaded from the folder.
        folder: The version on disk, with the requests in
            assets.extra/tf_serving_warmup_requests: an uncompressed TFRecord
            file of at most 1000 PredictionLog.

    Returns:
        The number of requests that ran.

    Raises:
        ServingError: If the file cannot be read or a request fails, since a
            model that fails its own examples is not fit to be served.
    """
    path = folder.path / WARMUP_FILE
    if not path.exists():
        return 0
    num_run = 0
    for number, record in enumerate(_read_records(path), start=1):
        num_run += _run_record(servable, record, f"record {number} of {path}")
    _LOGGER.info("Ran %d warm-up requests of %s", num_run, path)
    return num_run


def _read_records(path: Path) -> list[bytes]:
    dataset = tf.data.TFRecordDataset(str(path)).take(MAX_RECORDS + 1)
    try:
        records = list(dataset.as_numpy_iterator())
    except tf.errors.OpError as error:
        raise ServingError(
            "A warm-up file must be an uncompressed TFRecord file. Cannot read "
            f"{path}: {error.message}. Export the model again."
        ) from error
    if len(records) > MAX_RECORDS:
        raise ServingError(
            f"A warm-up file must hold at most {MAX_RECORDS} records. Found "
            f"more in {path}. Export the model with fewer."
        )
    return records


def _run_record(servable: Servable, record: bytes, where: str) -> bool:
    """Runs a record; returns whether it was a Predict request."""
    try:
        log = PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
    except DecodeError:
        kind = None
    if kind is None:
        raise ServingError(
            f"A warm-up record must be a PredictionLog. Found: {where}, "
            f"{len(record)} bytes of something else. Export the model again."
        )
    if kind != "predict_log":
        _LOGGER.warning("Left out %s: it is a %s", where, kind)
        return False
    try:
        predict(servable, log.predict_log.request)
    except StatusError as error:
        raise ServingError(
            f"Every warm-up request must succeed. Failed: {where} with "
            f"{error}. Export the model again, or remove the file."
        ) from error
    return True
