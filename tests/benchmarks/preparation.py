"""How fast are images embedded, compared with the bare image model?

python tests/benchmarks/preparation.py --out benchmarks/preparation.json
"""

import shutil
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import library
import numpy as np
from measure import Case, CaseBuilders, Group, Options, Row, main

from bmt_keras.data.features import prepare_features
from bmt_keras.models import build_image_tower
from bmt_keras.training.data import feature_source

# Images of a step: enough that what a run costs once, half a second, hardly
# counts.
IMAGES = {"notebook": 160, "coco": 48}
BATCH = 32  # of the bare model, as Keras' `predict` takes them
PREPARING, MODEL = "{}, preparing", "{}, bare image model"


def make_rows(preset: str) -> list[Row]:
    preparing, model = PREPARING.format(preset), MODEL.format(preset)
    return [Row(preparing, {preparing: 1}, {model: 1}, at_least=0.9)]


def build_cases(
    preset: str, options: Options, stack: ExitStack
) -> CaseBuilders:
    """Image files to embeddings on disk, and the model alone as Keras runs it.

    Both take the same image tower.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / preset
    count = options.steps * IMAGES[preset]
    settings = library.make_settings(options, preset)
    image_tower = build_image_tower(settings)
    source = feature_source(settings, image_tower)
    images = library.repeat_images(library.read_images(options), count)
    shape = (BATCH, source.height, source.width, 3)
    pixels = np.random.default_rng(0).random(shape, np.float32) * 255

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        prepare_features(images, source, folder=folder)

    def predict() -> None:
        for _ in range(count // BATCH):
            image_tower.predict_on_batch(pixels)

    return {
        PREPARING.format(preset): lambda: Case(prepare, items=count),
        MODEL.format(preset): lambda: Case(
            predict, items=count // BATCH * BATCH
        ),
    }


GROUPS = [
    Group("preparation", make_rows(preset), partial(build_cases, preset))
    for preset in IMAGES
]

if __name__ == "__main__":
    main(__doc__, GROUPS)
