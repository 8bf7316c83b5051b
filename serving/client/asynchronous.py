"""The client for programs with an event loop."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Iterable,
    Sequence,
)
from types import TracebackType
from typing import Self, Unpack

import grpc
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from ..errors import ServingError
from .calls import ModelCalls
from .channel import Options
from .photos import Photo, Row, count_photos, find_photos
from .progress import show_progress
from .questions import (
    CallOptions,
    Question,
    ask_captions,
    ask_stream,
    ask_texts,
)
from .results import CaptionResult, FilledText, TextScore
from .signatures import FILL_MASK, SCORE_CAPTION, R


class AsyncCaptionClient(ModelCalls):
    """Asks a server for captions without blocking the event loop.

    Arguments, questions, results and errors are those of `CaptionClient`. A
    client belongs to the event loop in which it is made. A task that is
    cancelled cancels its requests.

    Example:
        ```python
        async with AsyncCaptionClient("127.0.0.1:8500") as client:
            print((await client.caption_one("beach.jpg")).caption)
            async for photo, result in client.stream("holiday"):
                print(photo, result.caption or result.error)
        ```
    """

    def _open(
        self, options: Options, credentials: grpc.ChannelCredentials | None
    ) -> None:
        asyncio.get_running_loop()  # else gRPC would take another one
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(self.target, options)
        else:
            self._channel = grpc.aio.secure_channel(
                self.target, credentials, options
            )
        self._stub = PredictionServiceStub(self._channel)

    async def caption(
        self,
        images: Sequence[Photo],
        *,
        length: int | Sequence[int] | None = None,
        **options: Unpack[CallOptions],
    ) -> list[CaptionResult]:
        """Captions photos, as `CaptionClient.caption` does."""
        return await self._ask(ask_captions(images, length, **options))

    async def caption_one(
        self,
        image: Photo,
        *,
        length: int | None = None,
        **options: Unpack[CallOptions],
    ) -> CaptionResult:
        """Captions a photo, as `CaptionClient.caption_one` does."""
        (result,) = await self.caption([image], length=length, **options)
        return result

    async def stream(
        self,
        photos: Photo | Iterable[Photo],
        *,
        length: int | None = None,
        concurrency: int = 4,
        photos_a_request: int = 8,
        progress: bool = False,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[tuple[Photo, CaptionResult]]:
        """Captions any number of photos, as `CaptionClient.stream` does.

        Photos are read, and an iterable is advanced, in a worker thread.
        """
        found = await asyncio.to_thread(find_photos, photos)
        question = ask_stream(
            found,
            length,
            concurrency=concurrency,
            photos_a_request=photos_a_request,
            options=options,
        )
        answers = self._answer(question)
        try:
            with show_progress(progress, count_photos(found)) as advance:
                async for pair in answers:
                    advance()
                    yield pair
        finally:
            await answers.aclose()

    async def fill_mask(
        self,
        images: Sequence[Photo],
        texts: Sequence[str],
        **options: Unpack[CallOptions],
    ) -> list[FilledText]:
        """Fills the masks of texts, as `CaptionClient.fill_mask` does."""
        return await self._ask(ask_texts(FILL_MASK, images, texts, **options))

    async def score_caption(
        self,
        images: Sequence[Photo],
        texts: Sequence[str],
        **options: Unpack[CallOptions],
    ) -> list[TextScore]:
        """Scores texts, as `CaptionClient.score_caption` does."""
        return await self._ask(
            ask_texts(SCORE_CAPTION, images, texts, **options)
        )

    async def wait_until_reachable(self, seconds: float) -> None:
        """Waits for a server that is still starting, up to so many seconds.

        Raises:
            ServingError: If no server can be reached in that time.
        """
        try:
            await asyncio.wait_for(self._channel.channel_ready(), seconds)
        except TimeoutError as error:
            raise ServingError(self._explain_unreachable(seconds)) from error

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Returns the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the connection."""
        await self.close()

    async def _ask(self, question: Question[R]) -> list[R]:
        return [result async for _, result in self._answer(question)]

    async def _answer(
        self, question: Question[R]
    ) -> AsyncGenerator[tuple[Photo, R], None]:
        requests = question.requests(self._limit)
        pending: deque[asyncio.Task[list[tuple[Photo, R]]]] = deque()
        try:
            while True:
                rows = await asyncio.to_thread(next, requests, None)
                if rows is not None:
                    call = self._call(question, rows)
                    pending.append(asyncio.create_task(call))
                elif not pending:
                    return
                if rows is None or len(pending) >= question.concurrency:
                    for pair in await pending.popleft():
                        yield pair
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _call(
        self, question: Question[R], rows: list[Row]
    ) -> list[tuple[Photo, R]]:
        sent = [row for row in rows if not row.error]
        if not sent:
            return list(self._finish(question, rows, None))
        request = self._make_request(question.signature, sent)
        try:
            outcome = await self._stub.Predict(
                request, timeout=self._timeout(question)
            )
        except grpc.aio.AioRpcError as error:
            outcome = error
        return list(self._finish(question, rows, outcome))
