"""How fast are images embedded, compared with the bare image model?

python tests/benchmarks/preparation.py --out benchmarks/preparation.json
"""

import shutil
import tempfile
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import library
import numpy as np
from measure import Case, CaseBuilders, Group, Options, Row, main

from bmt_keras.data.photo_features import prepare_features
from bmt_keras.models import build_image_tower
from bmt_keras.training.data import feature_source

# Images of a step: enough that what a run costs once, half a second, hardly
# counts.
IMAGES = {"notebook": 160, "coco": 48}
BATCH = 32  # of the bare model, as Keras' `predict` takes them


def make_rows(preset: str) -> list[Row]:
    preparing, model = f"{preset}, preparing", f"{preset}, bare image model"
    return [Row(preparing, {preparing: 1}, {model: 1}, at_least=0.9)]


def build_cases(
    preset: str, options: Options, stack: ExitStack
) -> CaseBuilders:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    count = options.steps * IMAGES[preset]
    return {
        f"{preset}, preparing": partial(
            build_preparing, options, preset, count, folder / preset
        ),
        f"{preset}, bare image model": partial(
            build_bare_model, options, preset, count // BATCH
        ),
    }


# === What is called of the library ===


@cache
def _build_encoder(options: Options, preset: str) -> tuple[Any, Any]:

    settings = library.make_settings(options, preset)
    return settings, build_image_tower(settings)


def build_preparing(
    options: Options, preset: str, count: int, folder: Path
) -> Case:
    """Image files to embeddings on disk."""

    source = feature_source(*_build_encoder(options, preset))
    images = library.repeat_images(library.read_images(options), count)

    def run() -> None:
        if folder.exists():
            shutil.rmtree(folder)
        prepare_features(images, source, folder=folder)

    return Case(run, items=count)


def build_bare_model(options: Options, preset: str, batches: int) -> Case:
    """The image model alone, as Keras runs it."""
    settings, encoder = _build_encoder(options, preset)
    shape = (BATCH, settings.image.height, settings.image.width, 3)
    pixels = np.random.default_rng(0).random(shape, np.float32) * 255

    def run() -> None:
        for _ in range(batches):
            encoder.predict_on_batch(pixels)

    return Case(run, items=batches * BATCH)


GROUPS = [
    Group("preparation", make_rows(preset), partial(build_cases, preset))
    for preset in IMAGES
]

if __name__ == "__main__":
    main(__doc__, GROUPS)
