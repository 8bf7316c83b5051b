"""What a call of the client asks: checked, and cut into requests."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Generic, TypedDict, Unpack

from .photos import Photo, Row, read_row
from .results import CaptionResult
from .signatures import CAPTION, CAPTION_WITH_LENGTH, R, Signature

_LONGEST = 2**31 - 1  # a length is an int32


class CallOptions(TypedDict, total=False):
    """Options of every question.

    Args:
        timeout_s: float. Seconds that a request may take, retries included;
            by default the client's.
        shrink: bool. Sends a photo over the message size as a smaller JPEG;
            by default it is an error of its row.
        raise_errors: bool. Raises the first row's error; by default it is
            the row's result.
    """

    timeout_s: float
    shrink: bool
    raise_errors: bool


@dataclass(frozen=True)
class Question(Generic[R]):
    """Photos and what is asked about them.

    Args:
        signature: Signature.
        photos: The photos.
        extras: For each the signature's second input, or None.
        options: CallOptions.
        photos_a_request: int. Photos sent together at most; None for no limit
            but the message's size.
        concurrency: int. Requests on their way at a time.
        outlives_slow_calls: bool. Whether a request that takes too long, or
            is too large for the server, is the error of its photos; else it
            ends the call.
    """

    signature: Signature[R]
    photos: Iterable[Photo]
    extras: Iterable[int | bytes | None]
    options: CallOptions
    photos_a_request: int | None = None
    concurrency: int = 1
    outlives_slow_calls: bool = False

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name in ("photos_a_request", "concurrency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"`{name}` must be positive. Received: {value}."
                )
        if self.options.get("timeout_s", 1.0) <= 0:
            raise ValueError(
                "`timeout_s` must be positive. Received: "
                f"{self.options['timeout_s']}."
            )

    def requests(self, limit: int) -> Iterator[list[Row]]:
        """Reads the photos, and cuts them into requests.

        Args:
            limit: int. Bytes that the rows of a request may have.

        Yields:
            The rows of a request, in the photos' order, those with an error
            of their own among them.
        """
        rows: list[Row] = []
        size = 0
        shrink = self.options.get("shrink", False)
        for photo, extra in zip(self.photos, self.extras, strict=False):
            row = read_row(photo, extra, limit=limit, shrink=shrink)
            full = len(rows) == self.photos_a_request
            if rows and (full or size + row.size > limit):
                yield rows
                rows, size = [], 0
            rows.append(row)
            size += row.size
        if rows:
            yield rows


def ask_captions(
    images: Sequence[Photo],
    length: int | Sequence[int] | None,
    **options: Unpack[CallOptions],
) -> Question[CaptionResult]:
    """Asks for the captions of photos, free or of given lengths."""
    _check_images(images)
    if length is None:
        return Question(CAPTION, images, repeat(None), options)
    lengths = [length] * len(images) if isinstance(length, int) else length
    _check_lengths(lengths, len(images))
    return Question(CAPTION_WITH_LENGTH, images, lengths, options)


def ask_texts(
    signature: Signature[R],
    images: Sequence[Photo],
    texts: Sequence[str],
    **options: Unpack[CallOptions],
) -> Question[R]:
    """Asks about a text for each photo."""
    _check_images(images)
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be a sequence. Received: {texts!r}.")
    if len(texts) != len(images):
        raise ValueError(
            "`texts` must have one text a photo. Received: "
            f"{len(texts)} texts, {len(images)} photos."
        )
    encoded = [text.encode() for text in texts]
    return Question(signature, images, encoded, options)


def ask_stream(
    photos: Iterable[Photo],
    length: int | None,
    *,
    concurrency: int,
    photos_a_request: int,
    options: CallOptions,
) -> Question[CaptionResult]:
    """Asks for the captions of any number of photos, a few at a time."""
    if length is not None:
        _check_lengths([length], 1)
    return Question(
        CAPTION if length is None else CAPTION_WITH_LENGTH,
        photos,
        repeat(length),
        options,
        photos_a_request=photos_a_request,
        concurrency=concurrency,
        outlives_slow_calls=True,
    )


def _check_images(images: Sequence[Photo]) -> None:
    if isinstance(images, Photo):
        raise TypeError(
            "`images` must be a sequence of photos. Received: "
            f"{type(images).__name__}; `caption_one` takes a single photo."
        )


def _check_lengths(lengths: Sequence[int], count: int) -> None:
    if len(lengths) != count:
        raise ValueError(
            "`length` must be a number, or one number a photo. Received: "
            f"{len(lengths)} numbers, {count} photos."
        )
    for length in lengths:
        if not 0 <= length <= _LONGEST:
            raise ValueError(
                "`length` must be a number of tokens, or 0 for any. Received: "
                f"{length}."
            )
