"""Requests of photos to a captioner, and what is read of its answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow_serving.apis.predict_pb2 import (
    PredictRequest,
    PredictResponse,
)

from bmt_keras import contract

from .server.tensors import make_tensor_proto

_CALL_SECONDS = 120.0


def make_photo_request(photos: Sequence[bytes]) -> PredictRequest:
    """Asks `serving_default` for captions.

    Args:
        photos: bytes, one each.

    Returns:
        PredictRequest with `image_bytes`, (batch,) string.
    """
    array = np.empty(len(photos), dtype=object)  # (batch,)
    array[:] = photos
    request = PredictRequest()
    request.model_spec.name = contract.MODEL_NAME
    request.inputs[contract.IMAGE_BYTES].CopyFrom(make_tensor_proto(array))
    return request


def ask(stub: Any, request: PredictRequest) -> PredictResponse:
    """Sends a request over a PredictionServiceStub, and waits at length."""
    return stub.Predict(request, timeout=_CALL_SECONDS)


def read_texts(response: Any, output: str) -> list[str]:
    """Reads an output of strings, (batch,), such as captions or errors."""
    texts = response.outputs[output].string_val
    return [text.decode(errors="replace") for text in texts]
