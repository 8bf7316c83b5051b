"""The client for programs without an event loop."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Unpack

from .blocking_calls import BlockingCalls
from .photos import Photo, count_photos, find_photos
from .progress import show_progress
from .questions import CallOptions, ask_captions, ask_stream, ask_texts
from .results import CaptionResult, FilledText, TextScore
from .signatures import FILL_MASK, SCORE_CAPTION


class CaptionClient(BlockingCalls):
    """Asks a server for captions; the embedded one or TensorFlow Serving.

    Args:
        target: str. The server's address, "host:port", or a name of gRPC's
            such as "dns:///captions:8500", whose addresses take turns.
        model_name: str. The name under which the captioner is served.
        version: int. The version that answers; None for the latest.
        label: str. The label of the version that answers, such as "canary".
        timeout_s: float. Seconds that a request may take, retries included.
        max_message_mb: int. Largest request and answer in MiB; gRPC alone
            would refuse answers over 4.
        max_attempts: int, from 1 to 5. How often a request is made that ends
            UNAVAILABLE; any other failure is final.
        backoff_s: float. Seconds before the second attempt, doubled before
            each further one, up to 10 s, with jitter.
        keepalive_s: float. Seconds of silence after which the connection of
            a waiting request is tested; None never tests it. A server closes
            connections that are tested more often than it allows, which is
            every 300 s by default.
        tls: Tls. How the connection is encrypted; None for not at all.

    Every question takes `CallOptions` too: `timeout_s`, `shrink` and
    `raise_errors`.

    Raises:
        ValueError: If an option is out of its range.
        ServingError: If a file of `tls` cannot be read.

    Example:
        ```python
        with CaptionClient("127.0.0.1:8500") as client:
            print(client.caption_one("beach.jpg").caption)
            for photo, result in client.stream("holiday", concurrency=8):
                print(photo, result.caption or result.error)
        ```
    """

    def caption(
        self,
        images: Sequence[Photo],
        *,
        length: int | Sequence[int] | None = None,
        **options: Unpack[CallOptions],
    ) -> list[CaptionResult]:
        """Captions photos in as few requests as the message size allows.

        A server that batches refuses a request of more photos than its
        `max_batch_size`; `stream` cuts long lists.

        Args:
            images: Encoded photos as bytes, or paths of photo files.
            length: int, or one a photo. Tokens that a caption has, 0 for any;
                None asks the signature that has no lengths.
            **options: CallOptions.

        Returns:
            list of CaptionResult, one a photo, in order. A photo that cannot
            be read, sent or decoded has its `error` set; the others are not
            touched by it.

        Raises:
            ServingError: If no server answers, or it refuses the request.
        """
        return self._ask(ask_captions(images, length, **options))

    def caption_one(
        self,
        image: Photo,
        *,
        length: int | None = None,
        **options: Unpack[CallOptions],
    ) -> CaptionResult:
        """Captions a photo; `caption` tells the arguments and errors."""
        (result,) = self.caption([image], length=length, **options)
        return result

    def stream(
        self,
        photos: Photo | Iterable[Photo],
        *,
        length: int | None = None,
        concurrency: int = 4,
        photos_a_request: int = 8,
        progress: bool = False,
        **options: Unpack[CallOptions],
    ) -> Iterator[tuple[Photo, CaptionResult]]:
        """Captions any number of photos, a few requests at a time.

        Photos are read as their turn comes. A request that takes too long, or
        is too large for the server, is the error of its photos.

        Args:
            photos: A folder, whose photos are searched in its subfolders too,
                or paths and encoded photos.
            length: int. Tokens that each caption has, 0 for any.
            concurrency: int. Requests on their way at a time.
            photos_a_request: int. Photos sent together at most.
            progress: bool. Shows a bar on the error stream.
            **options: CallOptions.

        Yields:
            (photo, CaptionResult) in the order of the photos.

        Raises:
            ServingError: If no server answers, it refuses a request for
                another reason, or the folder has no photos.
        """
        found = find_photos(photos)
        question = ask_stream(
            found,
            length,
            concurrency=concurrency,
            photos_a_request=photos_a_request,
            options=options,
        )
        with (
            show_progress(progress, count_photos(found)) as advance,
            closing(self._answer(question)) as answers,
        ):
            for pair in answers:
                advance()
                yield pair

    def fill_mask(
        self,
        images: Sequence[Photo],
        texts: Sequence[str],
        **options: Unpack[CallOptions],
    ) -> list[FilledText]:
        """Fills the masks of texts, each with a look at its photo.

        Args:
            images: Encoded photos as bytes, or paths of photo files.
            texts: str, one a photo, with any number of `[MASK]`.
            **options: CallOptions.

        Returns:
            list of FilledText, one a photo, in order.

        Raises:
            ServingError: As `caption`.
        """
        return self._ask(ask_texts(FILL_MASK, images, texts, **options))

    def score_caption(
        self,
        images: Sequence[Photo],
        texts: Sequence[str],
        **options: Unpack[CallOptions],
    ) -> list[TextScore]:
        """Scores texts, each against its photo.

        Args:
            images: Encoded photos as bytes, or paths of photo files; the same
                one several times ranks several texts.
            texts: str, one a photo.
            **options: CallOptions.

        Returns:
            list of TextScore, one a photo, in order.

        Raises:
            ServingError: As `caption`.
        """
        return self._ask(ask_texts(SCORE_CAPTION, images, texts, **options))
