"""Warm-up: recorded requests run before a version is served."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from ..errors import ServingError
from .classify import classify
from .multi_inference import multi_inference
from .predict import predict
from .regress import regress
from .servable import Servable
from .status import StatusError
from .version_folders import VersionFolder

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000

_RUNS: dict[str, Callable[..., Any]] = {
    "predict_log": predict,
    "classify_log": classify,
    "regress_log": regress,
    "multi_inference_log": multi_inference,
}

_logger = logging.getLogger(__name__)


def warm_up(servable: Servable, folder: VersionFolder) -> int:
    """Runs a version's recorded requests, if it carries any.

    The first run of a signature builds its executor and can take seconds;
    after a warm-up no client waits for that.

    Args:
        servable: Servable loaded from the folder.
        folder: VersionFolder, with the records in
            assets.extra/tf_serving_warmup_requests: an uncompressed TFRecord
            file of at most 1000 PredictionLog.

    Returns:
        int, the number of requests that ran.

    Raises:
        ServingError: If the file cannot be read or a request fails, since a
            model that fails its own examples is not fit to be served.
    """
    path = folder.path / WARMUP_FILE
    if not path.exists():
        return 0
    records = _read_records(path)
    for number, record in enumerate(records, start=1):
        _run_record(servable, record, where=f"record {number} of {path}")
    _logger.info("Ran %d warm-up requests of %s", len(records), path)
    return len(records)


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


def _run_record(servable: Servable, record: bytes, *, where: str) -> None:
    try:
        log = PredictionLog.FromString(record)
    except DecodeError as error:
        raise ServingError(
            f"A warm-up record must be a PredictionLog. Found: {where}, "
            f"{len(record)} bytes of something else. Export the model again."
        ) from error
    kind = log.WhichOneof("log_type")
    if kind not in _RUNS:
        raise ServingError(
            f"A warm-up record must hold one of {', '.join(_RUNS)}. Found: "
            f"{kind} in {where}. Remove the record."
        )
    try:
        _RUNS[kind](servable, getattr(log, kind).request)
    except StatusError as error:
        raise ServingError(
            f"Every warm-up request must succeed. Failed: {where} with "
            f"{error}. Export the model again, or remove the file."
        ) from error
