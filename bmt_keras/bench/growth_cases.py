"""What more photos cost all that keeps books of them."""

import math
import shutil
from functools import cache, partial
from pathlib import Path

import numpy as np

from bmt_keras.bench.case import Case, CaseBuilders, Row
from bmt_keras.bench.corpus import (
    find_tokenizer,
    random_features,
    read_photos,
    repeat_photos,
)
from bmt_keras.bench.options import BenchOptions
from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.feature_source import FeatureSource
from bmt_keras.data.features import prepare_features
from bmt_keras.models import build_image_encoder, build_masked_lm
from bmt_keras.training.data import make_batches
from bmt_keras.training.text_cache import TextCache

TIMES = (1, 4, 16)
_SHAPE = (2, 2, 2048)  # InceptionV3's embedding in preset `notebook`
_SIZE = (128, 129)
_PHOTOS = 10  # at 1 x, for each step of `BenchOptions`
_BATCHES = 100  # that are read at all sizes

PREPARING = "preparing without an image model"
OPENING = "opening a cache of photos"
TOKENISING = "tokenising captions"
PLANNING = "planning an epoch"
READING = "reading batches"
CACHED = "opening cached maskings"
KINDS = (PREPARING, OPENING, TOKENISING, PLANNING, READING, CACHED)


def growth_rows() -> list[Row]:
    """The lines about growth: an item's time beside that at the smallest."""
    rows = []
    for kind in KINDS:
        smallest, *others = (_at(kind, times) for times in TIMES)
        rows.append(Row(smallest, {smallest: 1}))
        rows += [Row(name, {name: 1}, {smallest: 1}) for name in others]
    return rows


class GrowthCases:
    """Builds the cases.

    Args:
        options: What is measured.
        folder: Takes caches.
    """

    def __init__(self, options: BenchOptions, folder: Path) -> None:
        """Reads photos and the vocabulary."""
        self._folder = folder
        # One layer: only what surrounds ALBERT is looked at here.
        self._settings = options.settings(
            "notebook", num_layers=1, cached_maskings=1
        )
        photos = read_photos(options)
        self._tokenizer = find_tokenizer(self._settings, photos)
        self._photos = {
            times: repeat_photos(photos, times * _PHOTOS * options.steps)
            for times in TIMES
        }
        self._batches = cache(self._make_batches)

    @property
    def builders(self) -> CaseBuilders:
        """How each case is built."""
        kinds = {
            PREPARING: self._preparing,
            OPENING: self._opening,
            TOKENISING: self._tokenising,
            PLANNING: self._planning,
            READING: self._reading,
            CACHED: self._cached,
        }
        return {
            _at(kind, times): partial(build, times)
            for kind, build in kinds.items()
            for times in TIMES
        }

    # === Cases ===

    def _preparing(self, times: int) -> Case:
        photos, folder = self._photos[times], self._folder / f"new-{times}"

        def run() -> None:
            if folder.exists():
                shutil.rmtree(folder)
            prepare_features(photos, _source(), folder=folder)

        return Case(run, items=len(photos))

    def _opening(self, times: int) -> Case:
        photos, folder = self._photos[times], self._folder / f"old-{times}"
        prepare_features(photos, _source(), folder=folder)
        return Case(
            lambda: prepare_features(photos, _source(), folder=folder),
            items=len(photos),
            bytes=2.0 * len(photos) * math.prod(_SHAPE),
        )

    def _tokenising(self, times: int) -> Case:
        return Case(
            lambda: self._make_batches(times), items=len(self._batches(times))
        )

    def _planning(self, times: int) -> Case:
        batches = self._batches(times)
        return Case(lambda: batches.plan.of_epoch(0), items=len(batches))

    def _reading(self, times: int) -> Case:
        iterator = iter(self._batches(times).dataset())

        def run() -> None:
            for _ in range(_BATCHES):
                next(iterator)

        return Case(run, items=_BATCHES * self._settings.batch_size)

    def _cached(self, times: int) -> Case:
        batches = self._batches(times)
        encoder = build_image_encoder(self._settings)
        model = build_masked_lm(
            self._settings, self._tokenizer, image_encoder=encoder
        )
        cached = TextCache(
            batches,
            model,
            settings=self._settings,
            tokenizer=self._tokenizer,
            steps_per_epoch=batches.steps_per_epoch,
            folder=self._folder / f"states-{times}",
        )
        cached.dataset()
        return Case(cached.dataset, items=len(batches))

    # === What they are made of ===

    def _make_batches(self, times: int) -> CaptionBatches:
        photos = self._photos[times]
        return make_batches(
            photos,
            random_features(photos, _SHAPE),
            self._settings,
            self._tokenizer,
        )


def _source() -> FeatureSource:
    return FeatureSource(
        *_SIZE,
        encode=lambda pixels: np.zeros((len(pixels), *_SHAPE), np.float32),
        embedding_shape=_SHAPE,
    )


def _at(kind: str, times: int) -> str:
    return f"{kind}, {times} x"
