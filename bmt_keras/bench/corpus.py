"""Captions, vocabulary and embeddings that the cases are measured on."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from bmt_keras.bench.options import BenchOptions
from bmt_keras.bench.photos import make_words
from bmt_keras.data.coco import Photo, read_coco_captions
from bmt_keras.data.features import PhotoFeatures
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.settings import Settings
from bmt_keras.training.data import make_tokenizer

_VOCABULARY = 30_000  # ALBERT's


def read_photos(options: BenchOptions) -> list[Photo]:
    """Reads the captions and finds their photos."""
    return read_coco_captions(
        options.captions, options.images, limit=options.limit
    )


def find_tokenizer(
    settings: Settings, photos: Sequence[Photo]
) -> CaptionTokenizer:
    """The vocabulary that a run with these settings would have.

    Args:
        settings: The vocabulary and the text weights are read.
        photos: Photos with captions.

    Returns:
        The tokenizer. Where no file is given it has the captions' words and,
        unless the settings prune it, as many others as make it as large as
        ALBERT's.
    """
    given = settings.vocabulary or settings.text_weights != "random"
    if given or settings.prune_vocabulary:
        return make_tokenizer(settings, photos)
    captions = [caption for photo in photos for caption in photo.captions]
    known = CaptionTokenizer.from_captions(captions).vocabulary_size
    # Digits keep the other words apart from the captions' own.
    others = [f"{word}0" for word in make_words(_VOCABULARY - known)]
    # One a line: SentencePiece leaves out lines that are too long.
    return CaptionTokenizer.from_captions([*captions, *others])


def random_features(
    photos: Sequence[Photo], shape: tuple[int, ...], *, seed: int = 0
) -> PhotoFeatures:
    """Embeddings of photos whose numbers mean nothing.

    Args:
        photos: The photos.
        shape: Shape of an embedding.
        seed: Seed of the numbers.

    Returns:
        float16, in memory.
    """
    rng = np.random.default_rng(seed)
    array = rng.random((len(photos), *shape), np.float32).astype(np.float16)
    rows = {photo.image_id: row for row, photo in enumerate(photos)}
    return PhotoFeatures(array, rows)


def repeat_photos(photos: Sequence[Photo], count: int) -> list[Photo]:
    """So many photos with ids of their own, of as many files as there are.

    Args:
        photos: Photos.
        count: How many are wanted.
    """
    chosen = itertools.islice(itertools.cycle(photos), count)
    return [
        dataclasses.replace(photo, image_id=number)
        for number, photo in enumerate(chosen)
    ]
