"""The client for programs without an event loop."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
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


class CaptionClient(ModelCalls):
    """Asks a server for captions; the embedded one or TensorFlow Serving.

    Args:
        target: The server's address, "host:port", or a name of gRPC's such as
            "dns:///captions:8500", whose addresses take turns.
        model_name: The name under which the captioner is served.
        version: The version that answers; None for the latest.
        label: The label of the version that answers, such as "canary".
        timeout_s: Seconds that a request may take, retries included.
        max_message_mb: Largest request and answer in MiB; gRPC alone would
            refuse answers over 4.
        max_attempts: How often, from 1 to 5, a request is made that ends
            UNAVAILABLE; any other failure is final.
        backoff_s: Seconds before the second attempt, doubled before each
            further one, up to 10 s, with jitter.
        keepalive_s: Seconds of silence after which the connection of a waiting
            request is tested; None never tests it. A server closes connections
            that are tested more often than it allows, which is every 300 s by
            default.
        tls: How the connection is encrypted; None for not at all.

    Every call takes `CallOptions` too: `timeout_s` and `raise_errors`.

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

    def _transport(self) -> Any:
        return grpc

    def caption(
        self,
        images: Sequence[Image],
        *,
        length: int | Sequence[int] | None = None,
        **options: Unpack[CallOptions],
    ) -> list[CaptionResult]:
        """Captions images in as few requests as the message size allows.

        A server that batches refuses a request of more images than its
        `max_batch_size`; `stream` cuts long lists.

        Args:
            images: Encoded images as bytes, or paths of image files.
            length: Tokens that a caption has, or one number per image; 0 for
                any. None asks the signature that has no lengths.
            **options: `CallOptions`.

        Returns:
            A result per image, in order. An image that cannot be read, sent or
            decoded has its `error` set; the others are not affected.

        Raises:
            ServingError: If no server answers, or it refuses the request.
        """
        return self._ask(ask_captions(images, length, options))

    def caption_one(
        self,
        image: Image,
        *,
        length: int | None = None,
        **options: Unpack[CallOptions],
    ) -> CaptionResult:
        """Captions an image; for arguments and errors see `caption`."""
        (result,) = self.caption([image], length=length, **options)
        return result

    def stream(
        self,
        images: Image | Iterable[Image],
        *,
        length: int | None = None,
        concurrency: int = 4,
        images_per_request: int = 8,
        progress: bool = False,
        **options: Unpack[CallOptions],
    ) -> Iterator[tuple[Image, CaptionResult]]:
        """Captions any number of images, a few requests at a time.

        Images are read as their turn comes. A request that takes too long, or
        is too large for the server, is the error of its images.

        Args:
            images: A folder, whose images are searched in its subfolders too,
                or paths and encoded images.
            length: Tokens that each caption has, 0 for any.
            concurrency: Requests in flight at a time.
            images_per_request: Images sent together at most.
            progress: Shows a bar on the error stream.
            **options: `CallOptions`.

        Yields:
            (image, CaptionResult) in the order of the images.

        Raises:
            ServingError: If no server answers, it refuses a request for
                another reason, or the folder has no images.
        """
        question = ask_captions(
            find_images(images),
            length,
            options,
            concurrency=concurrency,
            images_per_request=images_per_request,
        )
        bar = show_progress("Captioning images") if progress else nullcontext()
        # A generator that is only left is closed when it is collected.
        with bar as show, closing(self._answer(question)) as answers:
            for done, pair in enumerate(answers, start=1):
                if show is not None:
                    show("", done, question.total)
                yield pair

    def fill_mask(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        **options: Unpack[CallOptions],
    ) -> list[FilledText]:
        """Fills the masks of texts, each for its image.

        Args:
            images: As in `caption`, whose errors this raises too.
            texts: A text per image, with any number of `[MASK]`.
            **options: `CallOptions`.
        """
        return self._ask(ask_about_texts(FilledText, images, texts, options))

    def score(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        **options: Unpack[CallOptions],
    ) -> list[TextScore]:
        """Scores texts, each against its image.

        Args:
            images: As in `caption`, whose errors this raises too; the same
                image several times ranks several texts.
            texts: A text per image.
            **options: `CallOptions`.
        """
        return self._ask(ask_about_texts(TextScore, images, texts, options))

    def wait_until_reachable(self, seconds: float) -> None:
        """Waits for a server that is still starting.

        A server opens its port once its model is loaded. If none can be
        reached in that time, this raises ServingError.
        """
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=seconds)
        except grpc.FutureTimeoutError as error:
            ready.cancel()  # else it would watch the channel for ever
            raise ServingError(self._explain_unreachable(seconds)) from error

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Returns the client."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the connection."""
        self.close()

    def _ask(self, question: Question[R]) -> list[R]:
        return [result for _, result in self._answer(question)]

    def _answer(
        self, question: Question[R]
    ) -> Generator[tuple[Image, R], None, None]:
        requests = question.cut_requests(self._max_example_bytes)
        pending: deque[tuple[list[Example], Any]] = deque()
        try:
            while True:
                examples = next(requests, None)
                if examples is not None:
                    pending.append((examples, self._start(question, examples)))
                elif not pending:
                    return
                if examples is None or len(pending) >= question.concurrency:
                    # The oldest first: results come in the images' order.
                    done, call = pending.popleft()
                    yield from self._pair_results(question, done, _wait(call))
        finally:
            # A caller who leaves a stream leaves no work to the server.
            for _, call in pending:
                if call is not None:
                    call.cancel()


def _wait(call: Any) -> PredictResponse | grpc.RpcError | None:
    try:
        return None if call is None else call.result()
    except grpc.RpcError as error:
        return error
    except grpc.FutureCancelledError:
        return call  # the server cancelled the call, which is its own error
