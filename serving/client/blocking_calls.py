"""The network side of the blocking client: requests sent and awaited."""

from collections import deque
from collections.abc import Generator
from types import TracebackType
from typing import Self

import grpc
from tensorflow_serving.apis.predict_pb2 import PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from ..errors import ServingError
from .calls import ModelCalls
from .channel import Options
from .photos import Photo, Row
from .questions import Question
from .signatures import R


class BlockingCalls(ModelCalls):
    """The calls of a served captioner, each awaited by its thread.

    Args: those of `CaptionClient`.
    """

    def _open(
        self, options: Options, credentials: grpc.ChannelCredentials | None
    ) -> None:
        if credentials is None:
            self._channel = grpc.insecure_channel(self.target, options)
        else:
            self._channel = grpc.secure_channel(
                self.target, credentials, options
            )
        self._stub = PredictionServiceStub(self._channel)

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
            raise ServingError(self._explain_unreachable(seconds)) from error

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

    def _ask(self, question: Question[R]) -> list[R]:
        return [result for _, result in self._answer(question)]

    def _answer(
        self, question: Question[R]
    ) -> Generator[tuple[Photo, R], None, None]:
        pending: deque[tuple[list[Row], grpc.Future | None]] = deque()
        try:
            for rows in question.requests(self._limit):
                pending.append((rows, self._start(question, rows)))
                if len(pending) >= question.concurrency:
                    rows, call = pending.popleft()
                    yield from self._finish(question, rows, _wait(call))
            while pending:
                rows, call = pending.popleft()
                yield from self._finish(question, rows, _wait(call))
        finally:
            for _, call in pending:
                if call is not None:
                    call.cancel()

    def _start(
        self, question: Question[R], rows: list[Row]
    ) -> grpc.Future | None:
        sent = [row for row in rows if not row.error]
        if not sent:
            return None
        request = self._make_request(question.signature, sent)
        return self._stub.Predict.future(
            request, timeout=self._timeout(question)
        )


def _wait(
    call: grpc.Future | None,
) -> PredictResponse | grpc.RpcError | None:
    if call is None:
        return None
    try:
        return call.result()
    except grpc.RpcError as error:
        return error
    except grpc.FutureCancelledError:
        return call  # it is the error too: the server gave the call up
