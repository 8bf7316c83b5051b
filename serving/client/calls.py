"""What both clients share: requests out of examples, results out of answers."""

import asyncio
import copy
import logging
import random
import re
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import repeat
from types import ModuleType
from typing import Any, ClassVar, Self

import grpc
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras import contract

from ..errors import ServingError
from .channel import MAX_BACKOFF_S, Tls, find_tls_fault, make_options
from .requests import Example, Image, Question, check_positive, name_error
from .results import R, read_results

_Sent = tuple[PredictRequest, Any] | None  # a request and its call, if any
_Outcome = Any  # PredictResponse, RpcError, or None where nothing was sent

_FRAMING = 256  # bytes: names and tags of a request's two inputs
_SHORTEST_S = 0.1  # less is no time for another attempt
# Of C++ and Go, and of Java.
_TOO_LARGE = re.compile("larger than max|exceeds maximum")
_LOGGER = logging.getLogger(__name__)


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
        timeout_s: float = 60.0,
        raise_errors: bool = False,
        max_message_mb: int = 256,
        max_attempts: int = 20,
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
            max_attempts=max_attempts,
            backoff_s=backoff_s,
            keepalive_s=keepalive_s,
        )
        self._target = target
        self._is_encrypted = tls is not None
        self._timeout_s = timeout_s
        self._max_attempts = max_attempts
        self._backoff_s = backoff_s
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
            backoff_s=backoff_s,
            keepalive_s=keepalive_s,
            tls=tls,
        )
        self._is_asynchronous = self._transport is grpc.aio
        if self._is_asynchronous:
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
        self._predict = predict if self._is_asynchronous else predict.future

    def with_timeout(self, seconds: float) -> Self:
        """Returns a client of another `timeout_s` on the same connection."""
        check_positive(seconds=seconds)
        other = copy.copy(self)
        other._timeout_s = seconds
        return other

    # One client awaits these coroutines. The other one runs them by hand, and
    # they block where they would wait.

    async def _answer(
        self, question: Question[R]
    ) -> AsyncGenerator[tuple[Image, R], None]:
        requests = question.cut_requests(self._max_example_bytes)
        pending: deque[tuple[list[Example], _Sent]] = deque()
        examples: list[Example] | None = []
        try:
            while examples is not None or pending:
                if self._is_asynchronous:  # reading files takes its time
                    examples = await asyncio.to_thread(next, requests, None)
                else:
                    examples = next(requests, None)
                if examples:
                    pending.append((examples, self._start(question, examples)))
                full = len(pending) >= question.concurrency
                if pending and (full or not examples):
                    # The oldest first: results come in the images' order.
                    done = await self._finish(question, *pending.popleft())
                    for part in done:
                        for pair in self._pair_results(question, *part):
                            yield pair
        finally:
            # A caller who leaves a stream leaves no work to the server.
            for _, sent in pending:
                if sent is not None:
                    sent[1].cancel()

    async def _finish(
        self, question: Question[R], examples: list[Example], sent: _Sent
    ) -> list[tuple[list[Example], _Outcome]]:
        """Waits for a request; one that is too large goes again in halves."""
        outcome = await self._wait(*sent) if sent else None
        if len(examples) == 1 or not _is_too_large(outcome):
            return [(examples, outcome)]
        half = len(examples) // 2
        parts: list[tuple[list[Example], _Outcome]] = []
        for part in (examples[:half], examples[half:]):
            again = self._start(question, part)
            parts += await self._finish(question, part, again)
        return parts

    async def _wait(self, request: PredictRequest, call: Any) -> _Outcome:
        """Waits for a call, and repeats it while the server is away or full."""
        end = time.monotonic() + self._timeout_s
        backoff_s = self._backoff_s
        for _ in range(1, self._max_attempts):
            outcome = await self._get_outcome(call)
            left = end - time.monotonic()
            if left < _SHORTEST_S or not self._may_pass(outcome):
                return outcome
            # Jitter: clients are not to come back all at once.
            pause = min(backoff_s * random.uniform(0.8, 1.2), left / 2)
            left -= pause
            if pause > 1:
                words = self._explain(outcome)
                _LOGGER.warning("%s Trying again for %.0f s.", words, left)
            if self._is_asynchronous:
                await asyncio.sleep(pause)
            else:
                time.sleep(pause)
            call = self._predict(request, timeout=left)
            backoff_s = max(backoff_s, min(2 * backoff_s, MAX_BACKOFF_S))
        return await self._get_outcome(call)

    async def _get_outcome(self, call: Any) -> _Outcome:
        try:
            return await call if self._is_asynchronous else call.result()
        except grpc.RpcError as error:
            return error
        except grpc.FutureCancelledError:
            return call  # the server cancelled the call: an error itself

    async def _reach(self, seconds: float) -> None:
        patient = self.with_timeout(seconds)
        patient._max_attempts = sys.maxsize
        nothing = PredictRequest()  # any server refuses it at once
        call = self._predict(nothing, timeout=seconds)
        outcome = await patient._wait(nothing, call)
        if _find_code(outcome) in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            words = patient._explain(outcome)
            raise ServingError(f"{words} That was after {seconds:g} s.")

    def _may_pass(self, outcome: _Outcome) -> bool:
        code = _find_code(outcome)
        if code == "UNAVAILABLE":
            details = outcome.details()
            # A proxy hangs up, too, while its server is away.
            return "Socket closed" in details or not find_tls_fault(
                details, self._is_encrypted
            )
        may_pass = code in ("RESOURCE_EXHAUSTED", "CANCELLED")
        return may_pass and not _is_too_large(outcome)

    def _start(
        self, question: Question[Any], examples: Sequence[Example]
    ) -> _Sent:
        """Sends the examples without an error, if there is one."""
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
        return request, self._predict(request, timeout=self._timeout_s)

    def _pair_results(
        self,
        question: Question[R],
        examples: Sequence[Example],
        outcome: _Outcome,
    ) -> Iterator[tuple[Image, R]]:
        """Pairs images with results, given a request's answer or failure."""
        answers: Iterator[R] = iter(())
        if isinstance(outcome, grpc.RpcError):
            error = self._explain(outcome)
            # A stream goes on where other images may do better.
            is_stream = question.images_per_request is not None
            may_go_on = is_stream and _find_code(outcome) in (
                "DEADLINE_EXCEEDED",
                "RESOURCE_EXHAUSTED",
            )
            if not may_go_on and not _is_too_large(outcome):
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
        code, details = _find_code(error), error.details()
        if fault := find_tls_fault(details, self._is_encrypted):
            return ServingError(
                f"The server at {self._target} {fault} ({details})."
            )
        if code == "UNAVAILABLE":
            return ServingError(
                f"No server answers at {self._target}; start one with `bmt "
                f"serve`, or give the address of a running one ({details})."
            )
        if code == "DEADLINE_EXCEEDED":
            return ServingError(
                f"The server at {self._target} gave no answer within "
                f"{self._timeout_s:g} s; send fewer images at once, or allow "
                "more time."
            )
        return ServingError(
            f"The server at {self._target} refused the request: {code}: "
            f"{details}"
        )


def _find_code(outcome: _Outcome) -> str:
    is_error = isinstance(outcome, grpc.RpcError)
    return outcome.code().name if is_error else "OK"


def _is_too_large(outcome: _Outcome) -> bool:
    is_full = _find_code(outcome) == "RESOURCE_EXHAUSTED"
    return is_full and bool(_TOO_LARGE.search(outcome.details()))
