"""What both clients share: requests out of examples, results out of answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras import contract

from ..errors import ServingError
from .channel import MAX_ATTEMPTS, Tls, make_options
from .requests import Example, Image, Question, check_positive, name_error
from .results import R, read_results

_OTHER_INPUTS = {
    contract.CAPTION_WITH_LENGTH: (contract.LENGTH, tf.int32),
    contract.FILL_MASK: (contract.TEXT, tf.string),
    contract.SCORE_CAPTION: (contract.TEXT, tf.string),
}
_FRAMING = 256  # bytes: names and tags of a request's two inputs
_ADVICE = "start one with `bmt serve`, or give the address of a running one"


class ModelCalls(ABC):
    """The calls of a served captioner; arguments as `CaptionClient`'s."""

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
        check_positive(
            timeout_s=timeout_s,
            max_message_mb=max_message_mb,
            backoff_s=backoff_s,
            keepalive_s=keepalive_s,
        )
        if not 1 <= max_attempts <= MAX_ATTEMPTS:
            raise ValueError(
                f"`max_attempts` must be from 1 to {MAX_ATTEMPTS}. Received: "
                f"{max_attempts}."
            )
        # gRPC holds the limit in an int32. Each request spends some of it on
        # the model's name and version.
        max_bytes = min(max_message_mb * 2**20, 2**31 - 1)
        empty = self._address_request("").ByteSize()
        self._max_example_bytes = max_bytes - empty - _FRAMING
        options = make_options(
            max_message_bytes=max_bytes,
            max_attempts=max_attempts,
            backoff_s=backoff_s,
            keepalive_s=keepalive_s,
            tls=tls,
        )
        transport = self._transport()
        if tls is None:
            self._channel = transport.insecure_channel(target, options)
        else:
            self._channel = transport.secure_channel(
                target, tls.read_credentials(), options
            )
        predict = PredictionServiceStub(self._channel).Predict
        # The asynchronous stub's calls are futures by themselves.
        self._predict = predict if transport is grpc.aio else predict.future

    @abstractmethod
    def _transport(self) -> Any:
        """Returns the module whose channels are used: `grpc` or `grpc.aio`."""

    def _address_request(self, signature: str) -> PredictRequest:
        # gRPC's messages have optional fields: what is not set is not sent.
        request = PredictRequest()
        request.model_spec.name = self.model_name
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        if self.label is not None:
            request.model_spec.version_label = self.label
        return request

    def _start(
        self, question: Question[Any], examples: Sequence[Example]
    ) -> Any:
        """Sends the examples without an error; returns the call, if any."""
        sent = [example for example in examples if not example.error]
        if not sent:
            return None
        request = self._address_request(question.signature)
        # Without the dtype, bytes of different sizes become a matrix of the
        # widest, and lose their final zeros.
        request.inputs[contract.IMAGE_BYTES].CopyFrom(
            tf.make_tensor_proto([e.image_bytes for e in sent], tf.string)
        )
        if question.signature in _OTHER_INPUTS:
            name, dtype = _OTHER_INPUTS[question.signature]
            request.inputs[name].CopyFrom(
                tf.make_tensor_proto([e.value for e in sent], dtype)
            )
        return self._predict(request, timeout=self._timeout(question))

    def _timeout(self, question: Question[Any]) -> float:
        return question.options.get("timeout_s", self.timeout_s)

    def _pair_results(
        self,
        question: Question[R],
        examples: Sequence[Example],
        outcome: PredictResponse | grpc.RpcError | None,
    ) -> Iterator[tuple[Image, R]]:
        """Pairs images with results, given a request's answer or failure."""
        count = sum(not example.error for example in examples)
        answers: Iterator[R] = iter(())
        if isinstance(outcome, grpc.RpcError):
            reason = self._explain(outcome, self._timeout(question))
            # A stream goes on where other images may do better.
            is_stream = question.images_per_request is not None
            if not is_stream or outcome.code() not in (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            ):
                raise ServingError(reason) from outcome
            answers = iter([question.result(error=reason)] * count)
        elif outcome is not None:
            name = f"model {self.model_name} at {self.target}"
            answers = iter(read_results(outcome, question.result, count, name))
        for example in examples:
            error = example.error
            result = question.result(error=error) if error else next(answers)
            if result.error and question.options.get("raise_errors"):
                raise ServingError(name_error(example.image, result.error))
            yield example.image, result

    def _explain(self, error: grpc.RpcError, timeout_s: float) -> str:
        code, details = error.code(), error.details()
        if code == grpc.StatusCode.UNAVAILABLE:
            return f"No server answers at {self.target}; {_ADVICE} ({details})."
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                f"The server at {self.target} gave no answer within "
                f"{timeout_s:g} s; send fewer images at once, or allow more "
                "time."
            )
        return (
            f"The server at {self.target} refused the request: {code.name}: "
            f"{details}"
        )

    def _explain_unreachable(self, seconds: float) -> str:
        return (
            f"No server answers at {self.target} after {seconds:g} s; "
            f"{_ADVICE}."
        )
