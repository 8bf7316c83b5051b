"""How fast are images embedded, compared with the bare image model?

python tests/benchmarks/preparation.py --out benchmarks/preparation.json

Image files to embeddings on disk are compared with the model alone as Keras
runs it; both take the same image tower.
"""

import tempfile
from functools import cache, partial
from typing import Any

import library
import numpy as np
from measure import Case, Group, Options, Row, main

from bmt_keras.data.features import prepare_features
from bmt_keras.models import build_image_tower
from bmt_keras.training.data import feature_source

# Images of a step: enough that what a run costs once, half a second, hardly
# counts.
IMAGES = {"notebook": 160, "coco": 48}
BATCH = 32  # of the bare model, as Keras' `predict` takes them


def make_group(preset: str) -> Group:
    preparing, model = f"{preset}, preparing", f"{preset}, bare image model"
    rows = [Row(preparing, {preparing: 1}, {model: 1}, at_least=0.9)]
    cases = {preparing: prepare, model: predict}
    return Group(
        "preparation",
        rows,
        {name: partial(case, preset=preset) for name, case in cases.items()},
    )


@cache
def _tower(options: Options, preset: str) -> tuple[Any, Any]:
    """An image tower, and the source of its features."""
    settings = library.make_settings(options, preset)
    tower = build_image_tower(settings)
    return tower, feature_source(settings, tower)


def prepare(options: Options, *, preset: str) -> Case:
    _, source = _tower(options, preset)
    count = options.steps * IMAGES[preset]
    images = library.repeat_images(library.read_images(options), count)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            prepare_features(images, source, folder=f"{folder}/cache")

    return Case(run, items=count)


def predict(options: Options, *, preset: str) -> Case:
    tower, source = _tower(options, preset)
    batches = options.steps * IMAGES[preset] // BATCH
    shape = (BATCH, source.height, source.width, 3)
    pixels = np.random.default_rng(0).random(shape, np.float32) * 255

    def run() -> None:
        for _ in range(batches):
            tower.predict_on_batch(pixels)

    return Case(run, items=batches * BATCH)


GROUPS = [make_group(preset) for preset in IMAGES]

if __name__ == "__main__":
    main(__doc__, GROUPS)
