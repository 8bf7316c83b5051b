"""What both clients share: requests out of examples, results out of answers."""

import asyncio
import copy
from collections.abc import Iterator, Sequence
from itertools import repeat
from types import ModuleType
from typing import Any, ClassVar, Self

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

_FRAMING = 256  # bytes: names and tags of a request's two inputs


class ModelCalls:
    """The calls of a served captioner; arguments as `CaptionClient`'s."""

    _transport: ClassVar[ModuleType]  # `grpc` or `grpc.aio`

    def __init__(
        self,
        target: str,
        *,
        model_name: str = contract.MODEL_NAME,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float = 30.0,
        raise_errors: bool = False,
        max_message_mb: int = 256,
        max_attempts: int = 4,
        backoff_s: float = 0.2,
        keepalive_s: float | None = None,
        tls: Tls | None = None,
    ) -> None:
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
        self._target = target
        self._timeout_s = timeout_s
        self._raise_errors = raise_errors
        # What is None is not sent.
        self._model = {
            "name": model_name,
            "version": None if version is None else {"value": version},
            "version_label": label,
        }
        # gRPC holds the limit in an int32. Each request spends some of it on
        # the model's name and version.
        max_bytes = min(max_message_mb * 2**20, 2**31 - 1)
        header = PredictRequest(model_spec=self._model).ByteSize()
        self._max_example_bytes = max_bytes - header - _FRAMING
        options = make_options(
            max_message_bytes=max_bytes,
            max_attempts=max_attempts,
            backoff_s=backoff_s,
            keepalive_s=keepalive_s,
            tls=tls,
        )
        is_asynchronous = self._transport is grpc.aio
        if is_asynchronous:
            asyncio.get_running_loop()  # else gRPC would take another one
        self._channel = (
            self._transport.insecure_channel(target, options)
            if tls is None
            else self._transport.secure_channel(
                target, tls.read_credentials(), options
            )
        )
        predict = PredictionServiceStub(self._channel).Predict
        # The asynchronous stub's calls are futures by themselves.
        self._predict = predict if is_asynchronous else predict.future

    def with_timeout(self, seconds: float) -> Self:
        """Returns a client of another `timeout_s` on the same connection."""
        check_positive(seconds=seconds)
        other = copy.copy(self)
        other._timeout_s = seconds
        return other

    def _start(
        self, question: Question[Any], examples: Sequence[Example]
    ) -> Any:
        """Sends the examples without an error; returns the call, if any."""
        sent = [example.inputs for example in examples if not example.error]
        if not sent:
            return None
        request = PredictRequest(
            model_spec={**self._model, "signature_name": question.signature}
        )
        for name in sent[0]:
            # Without the dtype, bytes of different sizes become a matrix of the
            # widest, and lose their final zeros.
            dtype = tf.int32 if name == contract.LENGTH else tf.string
            values = [inputs[name] for inputs in sent]
            tensor = tf.make_tensor_proto(values, dtype)
            request.inputs[name].CopyFrom(tensor)
        return self._predict(request, timeout=self._timeout_s)

    def _pair_results(
        self,
        question: Question[R],
        examples: Sequence[Example],
        outcome: PredictResponse | grpc.RpcError | None,
    ) -> Iterator[tuple[Image, R]]:
        """Pairs images with results, given a request's answer or failure."""
        answers: Iterator[R] = iter(())
        if isinstance(outcome, grpc.RpcError):
            error = self._explain(outcome)
            # A stream goes on where other images may do better.
            is_stream = question.images_per_request is not None
            if not is_stream or outcome.code() not in (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            ):
                raise error from outcome
            answers = repeat(question.result(error=str(error)))
        elif outcome is not None:
            count = sum(not example.error for example in examples)
            name = f"model {self._model['name']} at {self._target}"
            answers = iter(read_results(outcome, question.result, count, name))
        for example in examples:
            reason = example.error
            result = question.result(error=reason) if reason else next(answers)
            if result.error and self._raise_errors:
                raise ServingError(name_error(example.image, result.error))
            yield example.image, result

    def _explain(self, error: grpc.RpcError) -> ServingError:
        code, details = error.code(), error.details()
        if code == grpc.StatusCode.UNAVAILABLE:
            return self._unreachable(details)
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServingError(
                f"The server at {self._target} gave no answer within "
                f"{self._timeout_s:g} s; send fewer images at once, or allow "
                "more time."
            )
        return ServingError(
            f"The server at {self._target} refused the request: {code.name}: "
            f"{details}"
        )

    def _unreachable(self, details: str) -> ServingError:
        return ServingError(
            f"No server answers at {self._target}; start one with `bmt serve`, "
            f"or give the address of a running one ({details})."
        )
