"""What both clients share: requests out of rows, results out of answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from bmt_keras import contract

from ..errors import ServingError
from .channel import MOST_ATTEMPTS, Options, Tls, make_options
from .photos import Photo, Row, name_photo
from .questions import Question
from .signatures import R, Signature
from .wire import make_ints, make_strings, read_rows

_ABOUT_THE_PHOTOS = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
# Names and tags of a request's two inputs.
_FRAMING = 256


class ModelCalls(ABC):
    """The calls of a served captioner, but for the network.

    Args: those of `CaptionClient`.
    """

    def __init__(
        self,
        target: str,
        *,
        model_name: str = contract.MODEL_NAME,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float = 30.0,
        max_message_mb: int = 256,
        max_attempts: int = 4,
        backoff_s: float = 0.2,
        keepalive_s: float | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.target = target
        self.model_name = model_name
        self.version = version
        self.label = label
        self.timeout_s = timeout_s
        if version is not None and label is not None:
            raise ValueError(
                "`version` and `label` must not be given together. Received: "
                f"version={version}, label={label!r}."
            )
        for name, value in (
            ("timeout_s", timeout_s),
            ("max_message_mb", max_message_mb),
            ("backoff_s", backoff_s),
            ("keepalive_s", keepalive_s),
        ):
            if value is not None and value <= 0:
                raise ValueError(
                    f"`{name}` must be positive. Received: {value}."
                )
        if not 1 <= max_attempts <= MOST_ATTEMPTS:
            raise ValueError(
                f"`max_attempts` must be from 1 to {MOST_ATTEMPTS}. Received: "
                f"{max_attempts}."
            )
        # gRPC holds the limit in an int32.
        limit = min(max_message_mb * 2**20, 2**31 - 1)
        self._limit = limit - self._address_request("").ByteSize() - _FRAMING
        options = make_options(
            max_message_bytes=limit,
            max_attempts=max_attempts,
            backoff_s=backoff_s,
            keepalive_s=keepalive_s,
            tls=tls,
        )
        self._open(options, tls.read_credentials() if tls else None)

    @abstractmethod
    def _open(
        self, options: Options, credentials: grpc.ChannelCredentials | None
    ) -> None:
        """Opens the channel."""

    def _address_request(self, signature_name: str) -> PredictRequest:
        request = PredictRequest()
        request.model_spec.name = self.model_name
        request.model_spec.signature_name = signature_name
        if self.version is not None:
            request.model_spec.version.value = self.version
        if self.label is not None:
            request.model_spec.version_label = self.label
        return request

    def _make_request(
        self, signature: Signature[Any], rows: Sequence[Row]
    ) -> PredictRequest:
        request = self._address_request(signature.name)
        request.inputs[contract.IMAGE_BYTES].CopyFrom(
            make_strings([row.image_bytes for row in rows])
        )
        if signature.second_input is not None:
            extras: list[Any] = [row.extra for row in rows]
            make = make_ints if isinstance(extras[0], int) else make_strings
            request.inputs[signature.second_input].CopyFrom(make(extras))
        return request

    def _timeout(self, question: Question[Any]) -> float:
        return question.options.get("timeout_s", self.timeout_s)

    def _finish(
        self,
        question: Question[R],
        rows: Sequence[Row],
        outcome: PredictResponse | grpc.RpcError | None,
    ) -> Iterator[tuple[Photo, R]]:
        """Pairs the photos of a request with their results.

        Args:
            question: Question.
            rows: The rows of the request; those with an error were not sent.
            outcome: The answer, or how the call failed; None if no row was
                sent.
        """
        make = question.signature.result.from_error
        answers: Iterator[R] = iter(())
        if isinstance(outcome, grpc.RpcError):
            reason = self._explain(outcome, self._timeout(question))
            if not (
                question.outlives_slow_calls
                and outcome.code() in _ABOUT_THE_PHOTOS
            ):
                raise ServingError(reason) from outcome
            answers = iter([make(reason) for row in rows if not row.error])
        elif outcome is not None:
            count = sum(not row.error for row in rows)
            answers = iter(
                self._read_response(question.signature, outcome, count)
            )
        for row in rows:
            result = make(row.error) if row.error else next(answers)
            if result.error and question.options.get("raise_errors", False):
                raise ServingError(f"{name_photo(row.photo)}: {result.error}")
            yield row.photo, result

    def _read_response(
        self, signature: Signature[R], response: PredictResponse, count: int
    ) -> list[R]:
        names = signature.result.OUTPUTS
        missing = [name for name in names if name not in response.outputs]
        who = f"model {self.model_name} at {self.target}"
        if missing:
            raise ServingError(
                f"A captioner must answer with {', '.join(names)}. The answer "
                f"of {who} lacks {', '.join(missing)}; serve a model written "
                "by `bmt export`."
            )
        columns = {}
        for name in names:
            try:
                columns[name] = read_rows(response.outputs[name])
            except ValueError as error:
                raise ServingError(
                    f"The output {name} of {who} cannot be read: {error}"
                ) from error
            if len(columns[name]) != count:
                raise ServingError(
                    f"The output {name} of {who} must have a row a photo. "
                    f"Received: {len(columns[name])} rows, {count} photos."
                )
        return [
            signature.result.from_row(
                {name: column[i] for name, column in columns.items()}
            )
            for i in range(count)
        ]

    def _explain(self, error: grpc.RpcError, timeout_s: float) -> str:
        code = error.code()
        if code == grpc.StatusCode.UNAVAILABLE:
            return (
                f"No server answers at {self.target}; start one with "
                "`bmt serve`, or give the address of a running one "
                f"({error.details()})."
            )
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                f"The server at {self.target} gave no answer within "
                f"{timeout_s:g} s; send fewer photos at once, or allow more "
                "time."
            )
        return (
            f"The server at {self.target} refused the request: {code.name}: "
            f"{error.details()}"
        )

    def _explain_unreachable(self, seconds: float) -> str:
        return (
            f"No server answers at {self.target} after {seconds:g} s; start "
            "one with `bmt serve`, or give the address of a running one."
        )
