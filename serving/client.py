"""The client: photos in, captions out, from any server of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras import contract

from .errors import ServingError
from .tensors import make_tensor_proto

_OUTPUTS = (
    contract.CAPTION,
    contract.SCORE,
    contract.TOKEN_SCORES,
    contract.TOKEN_IDS,
    contract.ERROR,
)


@dataclass(frozen=True)
class CaptionResult:
    """The answer for a photo.

    Args:
        caption: str.
        score: float. Mean log-probability a token, in nats.
        token_scores: floats, one a token; 0 at padding.
        token_ids: ints, one a token, padding included.
        error: str. Why the photo has no caption; empty where it has one.
    """

    caption: str
    score: float
    token_scores: tuple[float, ...]
    token_ids: tuple[int, ...]
    error: str


class CaptionClient:
    """Asks a server for captions; the embedded one or TensorFlow Serving.

    Args:
        target: str. The server's address, "host:port".
        model_name: str. The name under which the captioner is served.
        timeout_s: float. Seconds that a request may take.
        max_message_mb: int. Largest request and answer in MiB; gRPC alone
            would refuse answers over 4.

    Example:
        ```python
        with CaptionClient("127.0.0.1:8500") as client:
            (result,) = client.caption(["beach.jpg"])
        print(result.caption)
        ```
    """

    def __init__(
        self,
        target: str,
        *,
        model_name: str = contract.MODEL_NAME,
        timeout_s: float = 30.0,
        max_message_mb: int = 256,
    ) -> None:
        self.target = target
        self.model_name = model_name
        self.timeout_s = timeout_s
        limit = max_message_mb * 2**20
        self._channel = grpc.insecure_channel(
            target,
            options=(
                ("grpc.max_send_message_length", limit),
                ("grpc.max_receive_message_length", limit),
            ),
        )
        self._stub = PredictionServiceStub(self._channel)

    def caption(
        self, images: Sequence[bytes | str | Path]
    ) -> list[CaptionResult]:
        """Captions photos in one request.

        Args:
            images: encoded photos as bytes, or paths of photo files.

        Returns:
            list of CaptionResult, one a photo, in order. A photo that cannot
            be decoded has its `error` set; the others are not touched by it.

        Raises:
            ServingError: If a file cannot be read, no server answers, or it
                refuses the request.
        """
        if not images:
            return []
        photos = np.empty(len(images), dtype=object)  # (batch,)
        photos[:] = [_read_photo(image) for image in images]
        request = PredictRequest()
        request.model_spec.name = self.model_name
        request.model_spec.signature_name = contract.SERVING_DEFAULT
        request.inputs[contract.IMAGE_BYTES].CopyFrom(make_tensor_proto(photos))
        try:
            response = self._stub.Predict(request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            raise ServingError(self._explain(error)) from error
        return _read_results(self._read_outputs(response))

    def wait_until_reachable(self, seconds: float) -> None:
        """Waits for a server that is still starting.

        A server opens its port once its model is loaded.

        Args:
            seconds: float. How long to wait at most.

        Raises:
            ServingError: If no server can be reached in that time.
        """
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=seconds)
        except grpc.FutureTimeoutError as error:
            ready.cancel()
            raise ServingError(
                f"No server answers at {self.target} after {seconds:g} s; "
                "start one with `bmt serve`, or give the address of a running "
                "one."
            ) from error

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Returns the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the connection."""
        self.close()

    def _explain(self, error: grpc.RpcError) -> str:
        code = error.code()
        if code == grpc.StatusCode.UNAVAILABLE:
            return (
                f"No server answers at {self.target}; start one with "
                "`bmt serve`, or give the address of a running one."
            )
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                f"The server at {self.target} gave no answer within "
                f"{self.timeout_s:g} s; send fewer photos at once, or allow "
                "more time."
            )
        return (
            f"The server at {self.target} refused the request: {code.name}: "
            f"{error.details()}"
        )

    def _read_outputs(self, response: PredictResponse) -> dict[str, np.ndarray]:
        missing = [name for name in _OUTPUTS if name not in response.outputs]
        if missing:
            raise ServingError(
                f"A captioner must answer with {', '.join(_OUTPUTS)}. The "
                f"answer of model {self.model_name} at {self.target} lacks "
                f"{', '.join(missing)}; serve a model written by `bmt export`."
            )
        # Not parse_tensor: it would start TensorFlow's runtime, GPU included.
        return {
            name: tf.make_ndarray(response.outputs[name]) for name in _OUTPUTS
        }


def _read_photo(image: bytes | str | Path) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise ServingError(
            f"A photo must be a file that can be read. Received: {image}: "
            f"{error.strerror}."
        ) from error


def _read_results(outputs: Mapping[str, np.ndarray]) -> list[CaptionResult]:
    rows = zip(*(outputs[name].tolist() for name in _OUTPUTS), strict=True)
    return [
        CaptionResult(
            caption=caption.decode(errors="replace"),
            score=score,
            token_scores=tuple(token_scores),
            token_ids=tuple(token_ids),
            error=error.decode(errors="replace"),
        )
        for caption, score, token_scores, token_ids, error in rows
    ]
