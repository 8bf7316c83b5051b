"""What callers give: images as pixels, texts as token ids, both checked."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.captioner.graph import CaptionGraph
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding import GAP, DecodingOptions
from bmt_keras.errors import InputError
from bmt_keras.image_files import read_image, report_unreadable

_ELLIPSIS = re.compile("\u2026|\\.{3,}")
_SEP = "[SEP]"  # stands for a gap while a template is tokenised


Image = Any  # what `read_image` takes, pixels, or an image embedding
Bad = dict[int, str] | None  # errors by numbers of images
Length = int | tuple[int | None, int | None] | None


# === Images ===


class ImageReader:
    """Turns images of several kinds into what a graph takes."""

    def __init__(self, graph: CaptionGraph) -> None:
        self._pixels_shape = graph.pixels_shape
        self._embedding_shape = graph.model.image_embedding_shape
        self._read = tf.function(
            graph.pixel_reader.read_batch,
            input_signature=[tf.TensorSpec((None,), tf.string)],
            autograph=False,
        )

    def to_batch(
        self, images: Image | Iterable[Image]
    ) -> tuple[Iterable[Image], bool]:
        """Gives images to iterate over, and whether there was one alone."""
        is_one = isinstance(images, str | bytes | bytearray | os.PathLike)
        # One of Pillow's, or a file, which would give lines.
        is_one |= hasattr(images, "convert") or hasattr(images, "read")
        if not is_one and hasattr(images, "__array__"):
            images, embedding = np.asarray(images), self._embedding_shape
            is_one = images.ndim < 4 and images.dtype.kind in "bfiu"
            is_one &= images.shape[1:] != embedding
            is_one |= images.shape == embedding
        return [images] if is_one else images, is_one

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
        self, images: Iterable[Image], batch_size: int, bad: Bad = None
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Reads images batch by batch; a bad one is named by path or number.

        It raises, or, with `bad`, its error goes there by its number and to the
        log, and any pixels take its place.

        Yields:
            The batch's rows, and its pixels, uint8, or embeddings, float32.
        """
        left, start = iter(images), 0
        while batch := list(islice(left, batch_size)):
            values, errors = self._read_batch(batch)
            for row in (row for row, error in errors.items() if error):
                is_named = isinstance(batch[row], str | os.PathLike)
                name = batch[row] if is_named else f"images[{start + row}]"
                if bad is None:
                    raise InputError(f"{name}: {errors[row]}")
                bad[start + row] = f"{name}: {errors[row]}"
            yield slice(start, start + batch_size), values
            start += len(batch)
        report_unreadable([*(bad or {}).values()], start, skip_bad=True)

    def _read_batch(self, images: list[Any]) -> tuple[Any, dict[int, str]]:
        if all(_is_array(x, "efd", self._embedding_shape) for x in images):
            # They are kept as float16, of which the graph has no trace.
            return np.stack(images, dtype=np.float32), {}
        pixels = np.empty((len(images), *self._pixels_shape), np.uint8)
        encoded, errors = dict[int, bytes](), dict[int, str]()
        copied = []
        for row, image in enumerate(images):
            if row and image is images[row - 1]:
                copied.append(row)  # one image with several texts
            elif _is_array(image, "B", self._pixels_shape):
                pixels[row] = image
            else:
                encoded[row], errors[row] = _encode_image(image)
        if encoded:
            # One call for all: the graph decodes them side by side.
            decoded, found = self._read(tf.constant(list(encoded.values())))
            pixels[list(encoded)] = decoded
            for row, error in zip(encoded, found.numpy(), strict=True):
                errors[row] = errors[row] or error.decode()
        for row in copied:
            pixels[row], errors[row] = pixels[row - 1], errors.get(row - 1, "")
        return pixels, errors


def _is_array(image: Any, types: str, shape: tuple[int, ...]) -> bool:
    """Whether it is an array of that shape and of one of NumPy's type codes."""
    is_array = isinstance(image, np.ndarray) and image.dtype.char in types
    return is_array and image.shape == shape


def _encode_image(image: Any) -> tuple[bytes, str]:
    """Encodes an image: pixels, too, which then take the way of files."""
    if isinstance(image, str) or not hasattr(image, "__array__"):
        return read_image(image)
    pixels = np.asarray(image)
    found = f"{pixels.dtype} {pixels.shape}"
    if pixels.dtype.kind == "f" and pixels.size:
        least, most = pixels.min(), pixels.max()
        found += f" from {least:g} to {most:g}"
        # Between 1 and 2 is what overshoots [0, 1], or what is nearly black.
        if least >= 0 and (most <= 1 or 2 <= most <= 255):
            scaled = pixels.astype(np.float32) * (255 if most <= 1 else 1)
            pixels = np.round(scaled).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    is_image = pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4)
    if is_image and pixels.size and pixels.dtype == np.uint8:
        return tf.io.encode_png(pixels, compression=1).numpy(), ""
    return b"", (
        "expected pixels, (height, width) or (height, width, channels), uint8 "
        f"or floats in [0, 1] or [0, 255], found {found}."
    )


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
