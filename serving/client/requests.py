"""What is asked: images found and read, checked, and cut into requests."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Generic, TypedDict

from bmt_keras import contract

from ..errors import ServingError
from .results import CaptionResult, FilledText, R, TextScore

Image = bytes | str | Path

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_ASKED_OF_TEXTS: dict[type, str] = {
    FilledText: contract.FILL_MASK,
    TextScore: contract.SCORE_CAPTION,
}
_MAX_LENGTH = 2**31 - 1  # a length is an int32
_FRAMING = 32  # bytes: tags and lengths of an example's fields in a request


class CallOptions(TypedDict, total=False):
    """Options of every call.

    Args:
        timeout_s: Seconds that a request may take, retries included; by
            default the client's.
        raise_errors: Raises the first error of an image; by default it is the
            image's result.
    """

    timeout_s: float
    raise_errors: bool


@dataclass(frozen=True)
class Example:
    """An image, the value of the signature's other input, and what is wrong."""

    image: Image
    image_bytes: bytes
    value: int | bytes | None
    error: str = ""


@dataclass(frozen=True)
class Question(Generic[R]):
    """Images, and what a signature is asked of them."""

    signature: str
    result: type[R]
    images: Iterable[Image]
    values: Iterable[int | bytes | None]  # of the other input, one per image
    options: CallOptions
    images_per_request: int | None = None  # at most, in a stream
    concurrency: int = 1  # requests in flight

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if isinstance(self.images, Image):
            raise TypeError(
                "`images` must be a sequence of images. Received: "
                f"{type(self.images).__name__}; `caption_one` takes a single "
                "image."
            )
        check_positive(
            images_per_request=self.images_per_request,
            concurrency=self.concurrency,
            timeout_s=self.options.get("timeout_s"),
        )

    @property
    def total(self) -> int | None:
        """The number of images, if it is known."""
        return len(self.images) if isinstance(self.images, Sized) else None

    def cut_requests(self, max_bytes: int) -> Iterator[list[Example]]:
        """Reads the images, and yields each request's examples in order.

        Those with an error are among them.
        """
        examples: list[Example] = []
        size = 0
        # `values` may be endless: one length for a stream of any size.
        for image, value in zip(self.images, self.values, strict=False):
            framing = _FRAMING + (len(value) if isinstance(value, bytes) else 0)
            example = _read_example(image, value, max_bytes - framing)
            added = len(example.image_bytes) + framing
            full = len(examples) == self.images_per_request
            # gRPC refuses a message that is too large as a whole.
            if examples and (full or size + added > max_bytes):
                yield examples
                examples, size = [], 0
            examples.append(example)
            size += added
        if examples:
            yield examples


def ask_captions(
    images: Iterable[Image],
    length: int | Sequence[int] | None,
    options: CallOptions,
    **limits: int,
) -> Question[CaptionResult]:
    """Asks for the captions of images, of any or of given lengths."""
    signature = contract.CAPTION_WITH_LENGTH
    values: Iterable[int | None]
    lengths: Sequence[int] = ()
    if length is None:
        signature, values = contract.SERVING_DEFAULT, repeat(None)
    elif isinstance(length, int):
        values, lengths = repeat(length), [length]
    else:
        _check_count("length", length, images)
        values = lengths = length
    for each in lengths:
        if not 0 <= each <= _MAX_LENGTH:
            raise ValueError(
                "`length` must be a number of tokens, or 0 for any. Received: "
                f"{each}."
            )
    return Question(signature, CaptionResult, images, values, options, **limits)


def ask_about_texts(
    result: type[R],
    images: Sequence[Image],
    texts: Sequence[str],
    options: CallOptions,
) -> Question[R]:
    """Asks about a text for each image."""
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be a sequence. Received: {texts!r}.")
    _check_count("texts", texts, images)
    values = [text.encode() for text in texts]
    return Question(_ASKED_OF_TEXTS[result], result, images, values, options)


def check_positive(**values: float | None) -> None:
    """Raises ValueError for the first value that is 0 or less."""
    for name, value in values.items():
        if value is not None and value <= 0:
            raise ValueError(f"`{name}` must be positive. Received: {value}.")


def _check_count(name: str, values: Sequence[object], images: Any) -> None:
    # A single image is refused later, with a better sentence.
    if not isinstance(images, Image) and len(values) != len(images):
        raise ValueError(
            f"`{name}` must have one value per image. Received: "
            f"{len(values)} values, {len(images)} images."
        )


# === Images ===


def find_images(images: Image | Iterable[Image]) -> Iterable[Image]:
    """Lists the images of a folder; what is no folder is taken as it is.

    Returns:
        The images; those of a folder and its subfolders in the order of their
        names.

    Raises:
        ServingError: The folder holds no image.
    """
    if not isinstance(images, Image):
        return images
    if isinstance(images, bytes) or not Path(images).is_dir():
        return [images]
    found = sorted(
        path
        for path in Path(images).rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not found:
        raise ServingError(
            f"{images}: expected images ({', '.join(IMAGE_SUFFIXES)}), found "
            "none."
        )
    return found


def name_error(image: Image, error: str) -> str:
    """Returns an image's error with the image's name in front, once."""
    if isinstance(image, bytes):
        name = f"image of {len(image)} bytes"
    else:
        name = str(image)
    return error if error.startswith(f"{name}: ") else f"{name}: {error}"


def _read_example(
    image: Image, value: int | bytes | None, max_bytes: int
) -> Example:
    try:
        image_bytes = (
            image if isinstance(image, bytes) else Path(image).read_bytes()
        )
    except OSError as error:
        # One bad file among thousands must not end a stream.
        reason = f"expected a file that can be read, found {error.strerror}."
    else:
        if len(image_bytes) <= max_bytes:
            return Example(image, image_bytes, value)
        reason = (
            f"expected at most {max_bytes} bytes, the room in a message, found "
            f"{len(image_bytes)}; send a smaller image, or raise "
            "`max_message_mb` here and at the server."
        )
    return Example(image, b"", value, name_error(image, reason))
