"""The two clients: for programs without an event loop, and with one."""

from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

import grpc

from .calls import ModelCalls
from .requests import (
    Image,
    Question,
    ask_about_texts,
    ask_captions,
    find_images,
)
from .results import CaptionResult, FilledText, R, TextScore


class CaptionClient(ModelCalls, AbstractContextManager["CaptionClient"]):
    """Asks a server for captions; the embedded one or TensorFlow Serving.

    Args:
        target: The server's address, "host:port", or a name of gRPC's such as
            "dns:///captions:8500", whose addresses take turns.
        model_name: The name under which the captioner is served.
        version: The version that answers; None for the latest.
        label: The label of the version that answers, such as "canary".
        timeout_s: Seconds that a request may take, retries included; for other
            ones see `with_timeout`.
        raise_errors: Raises the first error of an image; by default it is the
            image's result.
        max_message_mb: Largest request and answer in MiB; gRPC alone would
            refuse answers over 4.
        max_attempts: How often a request is made while the server is away
            (UNAVAILABLE) or full (RESOURCE_EXHAUSTED); any other failure is
            final, and so is one of TLS.
        backoff_s: Seconds before the second attempt, doubled before each
            further one, up to 5 s, with jitter.
        keepalive_s: Seconds of silence after which the connection of a waiting
            request is tested; None never tests it. A server closes connections
            that are tested more often than it allows, which is every 300 s by
            default.
        tls: How the connection is encrypted; None for not at all.

    Raises:
        ValueError: If an option is out of its range.
        ServingError: If a file of `tls` cannot be read.

    Example:
        ```python
        with CaptionClient("127.0.0.1:8500") as client:
            print(client.caption_one("beach.jpg").caption)
            for image, result in client.stream("holiday", concurrency=8):
                print(image, result.caption or result.error)
        ```
    """

    _transport = grpc

    def caption(
        self,
        images: Sequence[Image],
        *,
        length: int | Sequence[int] | None = None,
    ) -> list[CaptionResult]:
        """Captions images in as few requests as the message size allows.

        A server that batches refuses a request of more images than its
        `max_batch_size`; `stream` cuts long lists.

        Args:
            images: Encoded images as bytes, or paths of image files.
            length: Tokens that a caption has, or one number per image; 0 for
                any. None asks the signature that has no lengths.

        Returns:
            A result per image, in order. An image that cannot be read, sent or
            decoded has its `error` set; the others are not affected.

        Raises:
            ServingError: If no server answers, or it refuses the request.
        """
        return self._ask(ask_captions(images, length))

    def caption_one(
        self, image: Image, *, length: int | None = None
    ) -> CaptionResult:
        """Captions an image; for arguments and errors see `caption`."""
        (result,) = self.caption([image], length=length)
        return result

    def stream(
        self,
        images: Image | Iterable[Image],
        *,
        length: int | None = None,
        concurrency: int = 4,
        images_per_request: int = 8,
    ) -> Generator[tuple[Image, CaptionResult], None, None]:
        """Captions any number of images, a few requests at a time.

        Images are read as their turn comes. A request that takes too long, or
        is too large for the server, is the error of its images.

        Args:
            images: A folder, whose images are searched in its subfolders too,
                or paths and encoded images.
            length: Tokens that each caption has, 0 for any.
            concurrency: Requests in flight at a time.
            images_per_request: Images sent together at most.

        Yields:
            (image, CaptionResult) in the order of the images.

        Raises:
            ServingError: If no server answers, or it refuses a request for
                another reason.
            InputError: If the folder has no images.
        """
        question = ask_captions(
            find_images(images),
            length,
            concurrency=concurrency,
            images_per_request=images_per_request,
        )
        return self._iterate(question)

    def fill_mask(
        self, images: Sequence[Image], texts: Sequence[str]
    ) -> list[FilledText]:
        """Fills the masks of texts, each for its image.

        Args:
            images: As in `caption`, whose errors this raises too.
            texts: A text per image, with any number of `[MASK]`.
        """
        return self._ask(ask_about_texts(FilledText, images, texts))

    def score(
        self, images: Sequence[Image], texts: Sequence[str]
    ) -> list[TextScore]:
        """Scores texts, each against its image.

        Args:
            images: As in `caption`, whose errors this raises too; the same
                image several times ranks several texts.
            texts: A text per image.
        """
        return self._ask(ask_about_texts(TextScore, images, texts))

    def wait_until_reachable(self, seconds: float) -> None:
        """Waits for a server that is still starting.

        A server opens its port once its model is loaded. If none can be
        reached in that time, or TLS fails, this raises ServingError.
        """
        _run(self._reach(seconds))

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __exit__(self, *error: object) -> None:
        """Closes the connection."""
        self.close()

    def _ask(self, question: Question[R]) -> list[R]:
        return [result for _, result in self._iterate(question)]

    def _iterate(
        self, question: Question[R]
    ) -> Generator[tuple[Image, R], None, None]:
        pairs = self._answer(question)
        try:
            while True:
                yield _run(anext(pairs))
        except StopAsyncIteration:
            return
        finally:
            _run(pairs.aclose())


class AsyncCaptionClient(
    ModelCalls, AbstractAsyncContextManager["AsyncCaptionClient"]
):
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

    _transport = grpc.aio

    async def caption(
        self,
        images: Sequence[Image],
        *,
        length: int | Sequence[int] | None = None,
    ) -> list[CaptionResult]:
        """Captions images, as `CaptionClient.caption` does."""
        return await self._ask(ask_captions(images, length))

    async def caption_one(
        self, image: Image, *, length: int | None = None
    ) -> CaptionResult:
        """Captions an image, as `CaptionClient.caption_one` does."""
        (result,) = await self.caption([image], length=length)
        return result

    def stream(
        self,
        images: Image | Iterable[Image],
        *,
        length: int | None = None,
        concurrency: int = 4,
        images_per_request: int = 8,
    ) -> AsyncGenerator[tuple[Image, CaptionResult], None]:
        """Captions any number of images, as `CaptionClient.stream` does.

        Images are read, and an iterable is advanced, in a worker thread.
        """
        question = ask_captions(
            find_images(images),
            length,
            concurrency=concurrency,
            images_per_request=images_per_request,
        )
        return self._answer(question)

    async def fill_mask(
        self, images: Sequence[Image], texts: Sequence[str]
    ) -> list[FilledText]:
        """Fills the masks of texts, as `CaptionClient.fill_mask` does."""
        return await self._ask(ask_about_texts(FilledText, images, texts))

    async def score(
        self, images: Sequence[Image], texts: Sequence[str]
    ) -> list[TextScore]:
        """Scores texts, as `CaptionClient.score` does."""
        return await self._ask(ask_about_texts(TextScore, images, texts))

    async def wait_until_reachable(self, seconds: float) -> None:
        """Waits for a server, as `CaptionClient.wait_until_reachable` does."""
        await self._reach(seconds)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def __aexit__(self, *error: object) -> None:
        """Closes the connection."""
        await self.close()

    async def _ask(self, question: Question[R]) -> list[R]:
        return [result async for _, result in self._answer(question)]


def _run(steps: Any) -> Any:
    """Runs what only blocks to its end, or to its next value."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value
