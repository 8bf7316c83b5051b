"""Captions without photos, as something to train on."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.features import ImageFeatures
from bmt_keras.errors import InputError
from bmt_keras.training.data import TrainingData

_MOST_HELD_OUT = 2000


def read_caption_texts(path: str | Path) -> list[str]:
    """Reads a file of captions, one a line.

    Args:
        path: UTF-8 text, perhaps compressed (`.gz`). Empty lines are left out.

    Returns:
        The captions.

    Raises:
        InputError: The file is missing, no such text, or empty.
    """
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            texts = [line.strip() for line in file]
    except (OSError, EOFError, ValueError) as err:
        raise InputError(
            f"{path}: expected a text file of captions, one a line, found none "
            f"that can be read ({type(err).__name__})."
        ) from err
    texts = [text for text in texts if text]
    if len(texts) < 2:
        raise InputError(
            f"{path}: expected at least two captions, one a line, found "
            f"{len(texts)}."
        )
    return texts


def text_data(
    texts: Sequence[str], photo_shape: tuple[int, ...], *, seed: int
) -> TrainingData:
    """Gives captions one blank photo, for the text side to learn alone.

    All captions of a batch share the photo, which costs next to nothing then.

    Args:
        texts: Captions.
        photo_shape: Shape of what the model takes of a photo.
        seed: Seed of the captions that are held out.

    Returns:
        The data; about a twentieth is held out for validation.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    held_out = min(max(len(texts) // 20, 1), _MOST_HELD_OUT)
    sides = order[held_out:], order[:held_out]
    train, val = (
        [CaptionedImage(0, Path(), tuple(texts[i] for i in side))]
        for side in sides
    )
    blank = ImageFeatures(np.zeros((1, *photo_shape), np.float16), {0: 0})
    return TrainingData(train, val, blank, blank)
