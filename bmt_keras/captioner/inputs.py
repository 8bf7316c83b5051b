"""What callers give: images as pixels, texts as token ids, both checked."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import tensorflow as tf

from bmt_keras.captioner.graph import CaptionGraph
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding import GAP, DecodingOptions
from bmt_keras.errors import InputError

_ELLIPSIS = re.compile("\u2026|\\.{3,}")
_SEP = "[SEP]"  # stands for a gap while a template is tokenised


class PILImage(Protocol):
    """An image of Pillow, which is not imported."""

    def convert(self, mode: str) -> Any:
        """Gives the image in another mode, such as `RGB`."""


Image = str | os.PathLike[str] | bytes | np.ndarray | PILImage
Length = int | tuple[int | None, int | None] | None


# === Images ===


class ImageReader:
    """Turns images of several kinds into what a graph takes."""

    def __init__(self, graph: CaptionGraph) -> None:
        self._pixels_shape = graph.pixels_shape
        self._embedding_shape = graph.model.image_embedding_shape
        self._pixel_reader = graph.pixel_reader
        self._read = tf.function(
            graph.pixel_reader.read_batch,
            input_signature=[tf.TensorSpec((None,), tf.string)],
        )

    def to_batch(
        self, images: Image | Iterable[Image]
    ) -> tuple[Iterable[Image], bool]:
        """Gives images to iterate over, and whether there was one alone."""
        is_one = isinstance(images, str | bytes | os.PathLike)
        is_one |= hasattr(images, "convert")
        if isinstance(images, np.ndarray):
            is_pixels = images.dtype == np.uint8
            axes = 3 if is_pixels else len(self._embedding_shape)
            is_one = images.ndim <= axes  # an array of more is a batch
        return cast(Iterable[Image], [images] if is_one else images), is_one

    def pair_with_texts(
        self, images: Image | Iterable[Image], texts: str | Sequence[str]
    ) -> tuple[list[Image], list[str], bool]:
        """Gives as many images as texts, and whether one of each was given.

        One image goes with all texts, and one text with all images.
        """
        batch, is_one = self.to_batch(images)
        paired, is_text = list(batch), isinstance(texts, str)
        wanted = [texts] if isinstance(texts, str) else list(texts)
        if is_one:
            paired *= len(wanted)
        elif is_text:
            wanted *= len(paired)
        if len(paired) != len(wanted):
            raise InputError(
                "`texts` must be one for each image. Received: "
                f"{len(wanted)} texts, {len(paired)} images."
            )
        return paired, wanted, is_one and is_text

    def read_batches(
        self, images: Iterable[Image], batch_size: int
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Reads images batch by batch; a bad one is named by path or number.

        Yields:
            The batch's rows, and its pixels, uint8, or embeddings, float32.
        """
        left, start = iter(images), 0
        while batch := list(islice(left, batch_size)):
            rows = slice(start, start + batch_size)
            yield rows, self._read_batch(batch, start)
            start += batch_size

    def _read_batch(self, images: list[Any], start: int) -> np.ndarray:
        if all(map(self._is_embedding, images)):
            # They are kept as float16, of which the graph has no trace.
            return np.stack(images, dtype=np.float32)
        pixels = np.empty((len(images), *self._pixels_shape), np.uint8)
        encoded: dict[int, bytes] = {}
        copied = []
        for row, image in enumerate(images):
            if row and image is images[row - 1]:
                copied.append(row)  # one image with several texts
            elif isinstance(image, bytes):
                encoded[row] = image
            elif isinstance(image, str | os.PathLike):
                encoded[row] = _read_file(Path(image))
            else:
                pixels[row] = self._resize(image, start + row)
        if encoded:
            # One call for all: the graph decodes them side by side.
            decoded, errors = self._read(tf.constant(list(encoded.values())))
            for row, error in zip(encoded, errors.numpy(), strict=True):
                if error:
                    is_named = not isinstance(images[row], bytes)
                    name = images[row] if is_named else f"images[{start + row}]"
                    raise InputError(f"{name!s}: {error.decode()}")
            pixels[list(encoded)] = decoded
        for row in copied:
            pixels[row] = pixels[row - 1]
        return pixels

    def _is_embedding(self, image: Any) -> bool:
        is_array = isinstance(image, np.ndarray) and image.dtype.kind == "f"
        return is_array and image.shape == self._embedding_shape

    def _resize(self, image: Any, number: int) -> Any:
        if hasattr(image, "convert"):
            image = np.asarray(image.convert("RGB"))
        is_array = isinstance(image, np.ndarray)
        found = f"{image.dtype} {image.shape}" if is_array else type(image)
        is_rgb = is_array and image.ndim == 3 and image.shape[-1] == 3
        if not is_rgb or image.dtype != np.uint8:
            raise InputError(
                f"images[{number}]: expected a path, bytes, an image of Pillow "
                f"or RGB pixels, uint8 (height, width, 3), found {found}."
            )
        if image.shape == self._pixels_shape:
            return image
        return self._pixel_reader.resize(tf.constant(image))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected an image, found no file that can be read."
        ) from error


# === Texts ===


def encode_templates(
    texts: Sequence[str], tokenizer: CaptionTokenizer, max_tokens: int
) -> np.ndarray:
    """Encodes captions in part: int32, (texts, tokens), `GAP` for gaps, padded.

    `[MASK]` stands for one token, "…" or "..." for one or more.
    """
    fill = {tokenizer.sep_token_id, tokenizer.mask_token_id}
    marked = [_ELLIPSIS.sub(f" {_SEP} ", text) for text in texts]
    rows = _encode(
        "texts", texts, tokenizer, max_tokens, allowed=fill, marked=marked
    )
    rows = [row[1:-1] for row in rows]
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if _SEP in text or not fill & set(row):
            found = _SEP if _SEP in text else "neither"
            raise InputError(
                f"texts[{i}]: expected words, and [MASK] or \u2026 where some "
                f"are missing, found {found}: {text!r}."
            )
    padded = pad_rows(rows, tokenizer.pad_token_id)
    padded[padded == tokenizer.sep_token_id] = GAP
    return padded


def encode_keywords(
    keywords: Sequence[str], tokenizer: CaptionTokenizer, max_tokens: int
) -> np.ndarray:
    """Encodes words that a caption must hold: int32, (keywords, tokens)."""
    rows = _encode("keywords", keywords, tokenizer, max_tokens)
    rows = [row[1:-1] for row in rows]
    if (total := sum(map(len, rows))) > max_tokens:
        raise InputError(
            "`keywords` must fit into the caption together. Received: "
            f"{list(keywords)} of {total} tokens, for at most {max_tokens}."
        )
    return pad_rows(rows, tokenizer.pad_token_id)


def encode_captions(
    texts: Sequence[str], tokenizer: CaptionTokenizer, max_tokens: int
) -> np.ndarray:
    """Encodes captions: int32, (texts, length), `[CLS]` … `[SEP]`, padded."""
    # An unknown word has a score as any other.
    unknown = {tokenizer.unknown_token_id}
    rows = _encode("texts", texts, tokenizer, max_tokens, allowed=unknown)
    return pad_rows(rows, tokenizer.pad_token_id)


def _encode(
    name: str,
    texts: Sequence[str],
    tokenizer: CaptionTokenizer,
    max_tokens: int,
    *,
    allowed: Set[int] = frozenset(),
    marked: Sequence[str] | None = None,
) -> list[list[int]]:
    """Encodes texts, or what they became by marks, and checks the tokens."""
    rows = tokenizer.encode(marked or texts) if texts else []
    refused = set(tokenizer.special_token_ids) - allowed
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        tokens = row[1:-1]
        if not tokens:
            fault = "words, found none"
        elif (count := len(tokens)) > max_tokens:
            fault = (
                f"at most {max_tokens} tokens, the longest caption, "
                f"found {count}"
            )
        elif refused & set(tokens):
            fault = (
                "words of the vocabulary, found an unknown word or a special "
                "token"
            )
        else:
            continue
        raise InputError(f"{name}[{i}]: expected {fault}: {text!r}.")
    return rows


def pad_rows(rows: Sequence[Sequence[int]], pad_token_id: int) -> np.ndarray:
    """Makes rows of token ids equally long: int32, (rows, length)."""
    width = max(map(len, rows), default=0)
    padded = np.full((len(rows), width), pad_token_id, np.int32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


# === Lengths ===


def check_lengths(
    length: Length, options: DecodingOptions, max_tokens: int
) -> tuple[int, int]:
    """Turns an asked length into the fewest and most tokens of a caption."""
    bounds = (None, None) if length is None else length
    shortest, longest = (bounds, bounds) if isinstance(bounds, int) else bounds
    shortest = 1 if shortest is None else shortest
    longest = max_tokens if longest is None else longest
    if not 1 <= shortest <= longest <= max_tokens:
        raise InputError(
            "`length` must be a number of tokens, or the fewest and most, from "
            f"1 to {max_tokens}. Received: length={length}."
        )
    lengths = longest - shortest + 1
    if options.num_captions > lengths and not options.is_sampling:
        raise InputError(
            "Without sampling each caption of an image has another length: "
            "`num_captions` must be at most the number of allowed lengths, or "
            "`temperature` positive. Received: num_captions="
            f"{options.num_captions}, temperature=0, {lengths} lengths."
        )
    return shortest, longest
