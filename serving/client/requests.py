"""What is asked: images found and read, checked, and cut into requests."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Generic, TypedDict

from bmt_keras import contract

from ..errors import ServingError
from .results import CaptionResult, R

Image = bytes | str | Path

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_MAX_LENGTH = 2**31 - 1  # a length is an int32
_FRAMING = 32  # bytes: tags and lengths of an example's fields in a request


class CallOptions(TypedDict, total=False):
    """Options of every call.

    Args:
        timeout_s: float. Seconds that a request may take, retries included;
            by default the client's.
        raise_errors: bool. Raises the first error of an image; by default it
            is the image's result.
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
    """Images and what is asked of them.

    Args:
        signature: str. The signature that answers.
        result: type of an image's result.
        images: The images.
        values: For each image the value of the signature's other input.
        options: CallOptions.
        images_per_request: int. Images sent together at most, in a stream;
            None for no limit but the message's size. In a stream a request
            that is too slow or too large for the server is the error of its
            images; else it ends the call.
        concurrency: int. Requests in flight at a time.
    """

    signature: str
    result: type[R]
    images: Iterable[Image]
    values: Iterable[int | bytes | None]
    options: CallOptions
    images_per_request: int | None = None
    concurrency: int = 1

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

    def cut_requests(self, max_bytes: int) -> Iterator[list[Example]]:
        """Reads the images, and yields the examples of each request.

        Those with an error are among them, in the images' order. The examples
        of a request have `max_bytes` at most.
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
    *,
    images_per_request: int | None = None,
    concurrency: int = 1,
) -> Question[CaptionResult]:
    """Asks for the captions of images, of any or of given lengths."""
    signature = contract.CAPTION_WITH_LENGTH
    values: Iterable[int | None]
    if length is None:
        signature, values = contract.SERVING_DEFAULT, repeat(None)
    elif isinstance(length, int):
        _check_length(length)
        values = repeat(length)
    else:
        values = length
        _check_count("length", values, images)
        for each in length:
            _check_length(each)
    return Question(
        signature,
        CaptionResult,
        images,
        values,
        options,
        images_per_request=images_per_request,
        concurrency=concurrency,
    )


def ask_about_texts(
    signature: str,
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
    return Question(signature, result, images, values, options)


def check_positive(**values: float | None) -> None:
    """Raises ValueError for the first value that is 0 or less."""
    for name, value in values.items():
        if value is not None and value <= 0:
            raise ValueError(f"`{name}` must be positive. Received: {value}.")


def _check_count(name: str, values: Sequence[object], images: Any) -> None:
    if not isinstance(images, Image) and len(values) != len(images):
        raise ValueError(
            f"`{name}` must have one value per image. Received: "
            f"{len(values)} values, {len(images)} images."
        )


def _check_length(length: int) -> None:
    if not 0 <= length <= _MAX_LENGTH:
        raise ValueError(
            "`length` must be a number of tokens, or 0 for any. Received: "
            f"{length}."
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
    if isinstance(images, bytes):
        return [images]
    if not isinstance(images, str | Path):
        return images
    folder = Path(images)
    if not folder.is_dir():
        return [images]
    found: list[Image] = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not found:
        raise ServingError(
            f"{folder}: expected images ({', '.join(IMAGE_SUFFIXES)}), found "
            "none."
        )
    return found


def name_error(image: Image, error: str) -> str:
    """Returns an image's error with the image's name in front, once."""
    name = _name(image)
    return error if error.startswith(f"{name}: ") else f"{name}: {error}"


def _name(image: Image) -> str:
    if isinstance(image, bytes):
        return f"image of {len(image)} bytes"
    return str(image)


def _read_example(
    image: Image, value: int | bytes | None, max_bytes: int
) -> Example:
    """Reads an image; what is wrong with it becomes the example's error."""
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
