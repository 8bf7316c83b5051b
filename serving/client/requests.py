"""What is asked: images read, checked, and cut into requests."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Generic

from bmt_keras import contract, image_files

from .results import CaptionResult, FilledText, R, TextScore

Image = bytes | str | Path
Inputs = Mapping[str, int | bytes]  # of an example, by the signature's names

_ASKED_OF_TEXTS: dict[type, str] = {
    FilledText: contract.FILL_MASK,
    TextScore: contract.SCORE_CAPTION,
}
_MAX_LENGTH = 2**31 - 1  # a length is an int32
_FRAMING = 32  # bytes: tags and lengths of an example's fields in a request


@dataclass(frozen=True)
class Example:
    """An image, what is sent of it, and what is wrong with it."""

    image: Image
    inputs: Inputs
    error: str = ""


@dataclass(frozen=True)
class Question(Generic[R]):
    """Images, and what a signature is asked of them."""

    signature: str
    result: type[R]
    images: Iterable[Image]
    others: Iterable[Inputs]  # apart from the image, for each one
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
        )

    def cut_requests(self, max_bytes: int) -> Iterator[list[Example]]:
        """Reads the images, and yields each request's examples in order.

        Those with an error are among them.
        """
        examples: list[Example] = []
        size = 0
        # `others` may be endless, as a stream may.
        for image, others in zip(self.images, self.others, strict=False):
            example = _read_example(image, others, max_bytes)
            added = _count_bytes(example.inputs)
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
    **limits: int,
) -> Question[CaptionResult]:
    """Asks for the captions of images, of any or of given lengths."""
    signature = contract.SERVING_DEFAULT
    others: list[Inputs] = [{}]
    if length is not None:
        signature = contract.CAPTION_WITH_LENGTH
        lengths = [length] if isinstance(length, int) else length
        if not isinstance(length, int):
            _check_count("length", length, images)
        if not all(0 <= each <= _MAX_LENGTH for each in lengths):
            raise ValueError(
                "`length` must be a number of tokens, or 0 for any. Received: "
                f"{length}."
            )
        others = [{contract.LENGTH: each} for each in lengths]
    # One length is that of every image.
    return Question(signature, CaptionResult, images, cycle(others), **limits)


def ask_about_texts(
    result: type[R], images: Sequence[Image], texts: Sequence[str]
) -> Question[R]:
    """Asks about a text for each image."""
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be a sequence. Received: {texts!r}.")
    _check_count("texts", texts, images)
    others = [{contract.TEXT: text.encode()} for text in texts]
    return Question(_ASKED_OF_TEXTS[result], result, images, others)


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


def find_images(images: Image | Iterable[Image]) -> Iterator[Image]:
    """Yields images, of a folder those that `image_files` finds in it."""
    if not isinstance(images, Image):
        yield from images
    elif isinstance(images, bytes) or not Path(images).is_dir():
        yield images
    else:
        yield from image_files.find_images([images])


def name_error(image: Image, error: str) -> str:
    """Returns an image's error with the image's name in front, once."""
    if isinstance(image, bytes):
        name = f"image of {len(image)} bytes"
    else:
        name = str(image)
    return error if error.startswith(f"{name}: ") else f"{name}: {error}"


def _read_example(image: Image, others: Inputs, max_bytes: int) -> Example:
    room = max_bytes - _count_bytes(others)
    # One bad file among thousands must not end a stream.
    image_bytes, reason = image_files.read_image(image)
    if not reason:
        if len(image_bytes) <= room:
            return Example(image, {contract.IMAGE_BYTES: image_bytes, **others})
        reason = (
            f"expected at most {room} bytes, the room in a message, found "
            f"{len(image_bytes)}; send a smaller image, or raise "
            "`max_message_mb` here and at the server."
        )
    return Example(image, {}, name_error(image, reason))


def _count_bytes(inputs: Inputs) -> int:
    texts = [value for value in inputs.values() if isinstance(value, bytes)]
    return _FRAMING + sum(map(len, texts))
