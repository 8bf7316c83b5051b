"""Templates, keywords and captions as token ids, checked."""

import re
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from bmt_keras.captioner.photos import Image
from bmt_keras.decoding import GAP
from bmt_keras.errors import InputError

if TYPE_CHECKING:
    from bmt_keras.data.tokenizer import CaptionTokenizer

_ELLIPSIS = re.compile("\u2026|\\.{3,}")
_SEP = "[SEP]"  # stands for a gap while a template is tokenised


def pair_with_texts(
    images: Image | Iterable[Image], texts: str | Sequence[str]
) -> tuple[list[Image], list[str]]:
    """Brings photos and texts to the same number.

    Args:
        images: Photos, or one for all texts.
        texts: Texts, or one for all photos.

    Returns:
        As many photos as texts.

    Raises:
        InputError: Their numbers differ.
    """
    one_image = isinstance(images, str | Path | bytes) or (
        isinstance(images, np.ndarray) and images.ndim <= 3
    )
    several = cast(Iterable[Image], [images] if one_image else images)
    photos = list(several)
    wanted = [texts] if isinstance(texts, str) else list(texts)
    if one_image:
        photos = photos * len(wanted)
    elif isinstance(texts, str):
        wanted = wanted * len(photos)
    if len(photos) != len(wanted):
        raise InputError(
            "`texts` must be one for each photo. Received: "
            f"{len(wanted)} texts, {len(photos)} photos."
        )
    return photos, wanted


def encode_templates(
    texts: Sequence[str],
    tokenizer: "CaptionTokenizer",
    *,
    max_caption_tokens: int,
) -> np.ndarray:
    """Encodes captions given in part.

    Args:
        texts: Captions with `[MASK]` for one token and "…" or "..." for one
            or more.
        tokenizer: The tokenizer.
        max_caption_tokens: Most tokens of a caption.

    Returns:
        int32, (texts, tokens), with `GAP` for gaps, padded.

    Raises:
        InputError: A template is empty, has nothing to fill, is too long, or
            holds a word that the vocabulary lacks.
    """
    for i, text in enumerate(texts):
        if _SEP in text:
            raise InputError(
                f"texts[{i}]: expected words, [MASK] and \u2026, found {_SEP}: "
                f"{text!r}."
            )
    marked = [_ELLIPSIS.sub(f" {_SEP} ", text) for text in texts]
    rows = [row[1:-1] for row in tokenizer.encode(marked)] if marked else []
    fill = {tokenizer.sep_token_id, tokenizer.mask_token_id}
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        name = f"texts[{i}]"
        _check_words(
            name, text, row, tokenizer, max_caption_tokens, allowed=fill
        )
        if not fill & set(row):
            raise InputError(
                f"{name}: expected [MASK] or \u2026 where words are missing, "
                f"found neither: {text!r}."
            )
    padded = pad_rows(rows, tokenizer.pad_token_id)
    return np.where(padded == tokenizer.sep_token_id, GAP, padded).astype(
        np.int32
    )


def encode_keywords(
    keywords: Sequence[str],
    tokenizer: "CaptionTokenizer",
    *,
    max_caption_tokens: int,
) -> np.ndarray:
    """Encodes words that must stand in a caption.

    Args:
        keywords: Words or phrases.
        tokenizer: The tokenizer.
        max_caption_tokens: Most tokens that the caption may have.

    Returns:
        int32, (keywords, tokens), padded.

    Raises:
        InputError: A keyword is empty or holds a word that the vocabulary
            lacks, or together they are longer than the caption.
    """
    rows = [row[1:-1] for row in tokenizer.encode(keywords)]
    for i, (row, text) in enumerate(zip(rows, keywords, strict=True)):
        _check_words(f"keywords[{i}]", text, row, tokenizer, max_caption_tokens)
    if (total := sum(map(len, rows))) > max_caption_tokens:
        raise InputError(
            "`keywords` must fit into the caption together. Received: "
            f"{list(keywords)} of {total} tokens, for at most {max_caption_tokens}."
        )
    return pad_rows(rows, tokenizer.pad_token_id)


def encode_captions(
    texts: Sequence[str],
    tokenizer: "CaptionTokenizer",
    *,
    max_caption_tokens: int,
) -> np.ndarray:
    """Encodes whole captions.

    Args:
        texts: Captions.
        tokenizer: The tokenizer.
        max_caption_tokens: Most tokens of a caption.

    Returns:
        int32, (texts, length), `[CLS]` … `[SEP]`, padded.

    Raises:
        InputError: A caption is empty or too long.
    """
    rows = tokenizer.encode(texts)
    unknown = {tokenizer.unknown_token_id}
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        _check_words(
            f"texts[{i}]",
            text,
            row[1:-1],
            tokenizer,
            max_caption_tokens,
            unknown,
        )
    return pad_rows(rows, tokenizer.pad_token_id)


def _check_words(
    name: str,
    text: str,
    row: Sequence[int],
    tokenizer: "CaptionTokenizer",
    max_caption_tokens: int,
    allowed: Set[int] = frozenset(),
) -> None:
    if not row:
        raise InputError(f"{name}: expected words, found none: {text!r}.")
    if len(row) > max_caption_tokens:
        raise InputError(
            f"{name}: expected at most {max_caption_tokens} tokens, the longest "
            f"caption, found {len(row)}: {text!r}."
        )
    if set(row) & (set(tokenizer.special_token_ids) - allowed):
        raise InputError(
            f"{name}: expected words of the vocabulary, found an unknown word "
            f"or a special token: {text!r}."
        )


def pad_rows(rows: Sequence[Sequence[int]], pad_token_id: int) -> np.ndarray:
    """Makes rows of token ids equally long: int32, (rows, length)."""
    width = max(map(len, rows), default=0)
    padded = np.full((len(rows), width), pad_token_id, np.int32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded
