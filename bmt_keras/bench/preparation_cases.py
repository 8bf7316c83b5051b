"""Embedding photos into a cache, beside the bare image model."""

import shutil
from functools import cache, partial
from pathlib import Path

import keras
import numpy as np

from bmt_keras.bench.case import Case, CaseBuilders, Row
from bmt_keras.bench.corpus import read_photos, repeat_photos
from bmt_keras.bench.operations import image_operations
from bmt_keras.bench.options import BenchOptions
from bmt_keras.data.features import prepare_features
from bmt_keras.data.photo_reader import decode_photos
from bmt_keras.models import build_image_encoder
from bmt_keras.training.data import feature_source

# Photos of a step: so many that what a run costs once, half a second, hardly
# counts.
PHOTOS = {"notebook": 160, "coco": 48}
BATCH = 32  # photos of the bare model's batch, as Keras' `predict` takes them
PREPARING = "{preset}, preparing"
FORWARD = "{preset}, bare image model"
READING = "{preset}, reading alone"
MANY = "preparing {count} photos"


def preparation_rows() -> list[Row]:
    """The lines about preparation."""
    rows = []
    for preset in PHOTOS:
        preparing = PREPARING.format(preset=preset)
        forward = FORWARD.format(preset=preset)
        reading = READING.format(preset=preset)
        rows += [
            Row(preparing, {preparing: 1}, {forward: 1}, at_least=0.9),
            # Both share the cores: no overlap hides what reading computes.
            Row(
                f"{preparing}, reading counted",
                {preparing: 1},
                {forward: 1, reading: 1},
            ),
        ]
    return rows


class PreparationCases:
    """Builds the cases.

    Args:
        options: What is measured.
        folder: Takes caches.
    """

    def __init__(self, options: BenchOptions, folder: Path) -> None:
        """Reads the list of photos."""
        self._options = options
        self._folder = folder
        self._photos = read_photos(options)
        self._encoder = cache(self._build_encoder)

    @property
    def builders(self) -> CaseBuilders:
        """How each case is built."""
        builders = {
            MANY.format(count=count): partial(
                self._preparing, "notebook", count
            )
            for count in self._options.memory_photos
        }
        for preset, photos in PHOTOS.items():
            count = self._options.steps * photos
            for name, build in (
                (PREPARING, self._preparing),
                (FORWARD, self._forward),
                (READING, self._reading),
            ):
                builders[name.format(preset=preset)] = partial(
                    build, preset, count
                )
        return builders

    def _preparing(self, preset: str, count: int) -> Case:
        settings = self._options.settings(preset)
        encoder = self._encoder(preset)
        source = feature_source(settings, encoder)
        photos = repeat_photos(self._photos, count)
        folder = self._folder / preset

        def run() -> None:
            if folder.exists():
                shutil.rmtree(folder)
            prepare_features(photos, source, folder=folder)

        return Case(
            run,
            items=count,
            operations=image_operations(encoder, count),
        )

    def _forward(self, preset: str, count: int) -> Case:
        settings = self._options.settings(preset)
        encoder = self._encoder(preset)
        shape = (BATCH, settings.image_height, settings.image_width, 3)
        pixels = np.random.default_rng(0).random(shape, np.float32) * 255

        def run() -> None:
            for _ in range(count // BATCH):
                encoder.predict_on_batch(pixels)

        return Case(
            run,
            items=count // BATCH * BATCH,
            operations=image_operations(encoder, count // BATCH * BATCH),
        )

    def _reading(self, preset: str, count: int) -> Case:
        settings = self._options.settings(preset)
        photos = repeat_photos(self._photos, count)

        def run() -> None:
            for _ in decode_photos(
                photos,
                height=settings.image_height,
                width=settings.image_width,
            ):
                pass

        return Case(run, items=count)

    def _build_encoder(self, preset: str) -> keras.Model:
        return build_image_encoder(self._options.settings(preset))
