"""The client for programs with an event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, nullcontext
from typing import Any, Self, Unpack

import grpc
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from bmt_keras.progress import show_progress

from ..errors import ServingError
from .calls import ModelCalls
from .requests import (
    CallOptions,
    Example,
    Image,
    Question,
    ask_about_texts,
    ask_captions,
    find_images,
)
from .results import CaptionResult, FilledText, R, TextScore


class AsyncCaptionClient(ModelCalls):
    """Asks a server for captions without blocking the event loop.

    Arguments, methods, results and errors are those of `CaptionClient`. A
    client belongs to the event loop in which it is made. A task that is
    cancelled cancels its requests.

    Example:
        ```python
        async with AsyncCaptionClient("127.0.0.1:8500") as client:
            print((await client.caption_one("beach.jpg")).caption)
            async for image, result in client.stream("holiday"):
                print(image, result.caption or result.error)
        ```
    """

    def _transport(self) -> Any:
        asyncio.get_running_loop()  # else gRPC would take another one
        return grpc.aio

    async def caption(
        self,
        images: Sequence[Image],
        *,
        length: int | Sequence[int] | None = None,
        **options: Unpack[CallOptions],
    ) -> list[CaptionResult]:
        """Captions images, as `CaptionClient.caption` does."""
        return await self._ask(ask_captions(images, length, options))

    async def caption_one(
        self,
        image: Image,
        *,
        length: int | None = None,
        **options: Unpack[CallOptions],
    ) -> CaptionResult:
        """Captions an image, as `CaptionClient.caption_one` does."""
        (result,) = await self.caption([image], length=length, **options)
        return result

    async def stream(
        self,
        images: Image | Iterable[Image],
        *,
        length: int | None = None,
        concurrency: int = 4,
        images_per_request: int = 8,
        progress: bool = False,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[tuple[Image, CaptionResult]]:
        """Captions any number of images, as `CaptionClient.stream` does.

        Images are read, and an iterable is advanced, in a worker thread.
        """
        found = await asyncio.to_thread(find_images, images)
        question = ask_captions(
            found,
            length,
            options,
            concurrency=concurrency,
            images_per_request=images_per_request,
        )
        bar = show_progress("Captioning images") if progress else nullcontext()
        with bar as show:
            # An async generator that is only left is closed too late.
            async with aclosing(self._answer(question)) as answers:
                done = 0
                async for pair in answers:
                    done += 1
                    if show is not None:
                        show("", done, question.total)
                    yield pair

    async def fill_mask(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        **options: Unpack[CallOptions],
    ) -> list[FilledText]:
        """Fills the masks of texts, as `CaptionClient.fill_mask` does."""
        question = ask_about_texts(FilledText, images, texts, options)
        return await self._ask(question)

    async def score(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        **options: Unpack[CallOptions],
    ) -> list[TextScore]:
        """Scores texts, as `CaptionClient.score` does."""
        question = ask_about_texts(TextScore, images, texts, options)
        return await self._ask(question)

    async def wait_until_reachable(self, seconds: float) -> None:
        """Waits for a server, as `CaptionClient.wait_until_reachable` does."""
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

    async def __aexit__(self, *error: object) -> None:
        """Closes the connection."""
        await self.close()

    async def _ask(self, question: Question[R]) -> list[R]:
        return [result async for _, result in self._answer(question)]

    async def _answer(
        self, question: Question[R]
    ) -> AsyncGenerator[tuple[Image, R], None]:
        requests = question.cut_requests(self._max_example_bytes)
        pending: deque[tuple[list[Example], Any]] = deque()
        try:
            while True:
                # Reading files would block the event loop.
                examples = await asyncio.to_thread(next, requests, None)
                if examples is not None:
                    pending.append((examples, self._start(question, examples)))
                elif not pending:
                    return
                if examples is None or len(pending) >= question.concurrency:
                    # The oldest first: results come in the images' order.
                    done, call = pending.popleft()
                    outcome = await _wait(call)
                    for pair in self._pair_results(question, done, outcome):
                        yield pair
        finally:
            # A caller who leaves a stream leaves no work to the server.
            for _, call in pending:
                if call is not None:
                    call.cancel()


async def _wait(call: Any) -> PredictResponse | grpc.RpcError | None:
    try:
        return None if call is None else await call
    except grpc.aio.AioRpcError as error:
        return error
