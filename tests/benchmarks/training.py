"""How fast is training, compared with the notebook's own loop?

python tests/benchmarks/training.py --out benchmarks/training.json

All of preset `notebook`: its step compared with a bare ALBERT forward pass of
its batches; live and cached training compared with its step; and reading
batches compared with the step that takes them.
"""

import itertools
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import keras
import library
import numpy as np
import tensorflow as tf
from measure import Case, Group, Options, Row, main
from notebook_step import NotebookModel

from bmt_keras.data.batches import TEXT_SIGNATURE, CaptionBatches
from bmt_keras.models import BimodalMaskedLM, build_image_tower, build_masked_lm
from bmt_keras.training.data import make_batches
from bmt_keras.training.masked_state_cache import MaskedStateCache
from bmt_keras.training.optimizer import compile_model

NOTEBOOK, ALBERT = "notebook's step", "bare ALBERT forward"
LIVE, BUCKETED = "live, batch 8", "live, batch 8, buckets"
CACHED, CACHED_64 = "cached, batch 8", "cached, batch 64"
CACHING, READING = "caching of a masking", "input pipeline: {}"
BATCH = 8  # the preset's
EPOCHS = 20  # of the run over which caching is averaged
_MASKINGS = (1, 2, 5)
_CACHED_IMAGES = 52  # about 256 captions, whose states a round computes
_MORE = 10  # times as many cached steps as live ones make up a round


def training_rows() -> list[Row]:
    reference = {NOTEBOOK: 1.0}
    rows = [
        Row(NOTEBOOK, reference, {ALBERT: 1}, at_most=1.3),
        Row(LIVE, {LIVE: 1}, reference, at_least=1.3),
        Row(BUCKETED, {BUCKETED: 1}, reference, at_least=1.3),
    ]
    for name, wanted in ((CACHED, 10), (CACHED_64, 15)):
        for maskings in _MASKINGS:
            parts = {name: 1.0, CACHING: maskings / EPOCHS}
            run = f"{name}, {EPOCHS} epochs, {maskings} maskings"
            at_least = wanted if maskings == 1 else None
            rows.append(Row(run, parts, reference, at_least=at_least))
    return rows


# === What is called of the library ===


class _Subject:
    """Preset `notebook` and its data; the methods build the cases."""

    def __init__(self, options: Options) -> None:
        self._steps = options.steps
        self._folder = tempfile.TemporaryDirectory()
        self._settings = library.make_settings(
            options, "notebook", epochs=EPOCHS, cached_maskings=1
        )
        self._images = library.read_images(options)
        self._tokenizer = library.find_tokenizer(self._settings, self._images)
        self._image_tower = build_image_tower(self._settings)
        self._embeddings = library.random_embeddings(
            self._images, tuple(self._image_tower.output.shape[1:])
        )

    def notebook(self) -> Case:
        """The notebook's own step."""
        model = self._build_model()
        notebook = NotebookModel(
            model.text_tower,
            masking=model.masking,
            image_embedding_shape=model.image_embedding_shape,
        )
        compile_model(notebook, self._settings, total_steps=1)
        return self._train_live(notebook, self._make_batches())

    def albert(self) -> Case:
        """ALBERT's states alone, of the same batches."""
        model, batches = self._build_model(), self._make_batches()
        planned = self._plan(batches)
        read = [batches.gather(each) for each in planned]
        encode = tf.function(
            partial(model.encode_text, training=False),
            input_signature=[tf.TensorSpec((None, None), tf.int32)] * 2,
        )

        def run() -> None:
            for batch in read:
                encode(batch["token_ids"], batch["padding_mask"]).numpy()

        return Case(run, items=_count_captions(planned))

    def live(self, **settings: Any) -> Case:
        """The library's step, with ALBERT in it."""
        return self._train_live(
            self._build_model(), self._make_batches(**settings)
        )

    def caching(self) -> Case:
        """Computing one masking's states of captions."""
        batches = self._make_batches(_CACHED_IMAGES)
        cache = self._make_cache(self._build_model(), batches)

        def run() -> None:
            for states in cache.folder.glob("round-*"):
                shutil.rmtree(states)
            cache.dataset()

        return Case(run, items=len(batches))

    def cached(self, *, batch_size: int = BATCH) -> Case:
        """The library's step on states computed before."""
        model, steps = self._build_model(), self._steps * _MORE
        dataset = self._cached_data(model, batch_size)
        run = _train_steps(model, dataset, steps)
        return Case(run, items=steps * batch_size)

    def read(self, *, batch_size: int = BATCH, is_cached: bool = True) -> Case:
        """The batches alone."""
        dataset = self._make_batches().dataset()
        if is_cached:
            dataset = self._cached_data(self._build_model(), batch_size)
        iterator, steps = iter(dataset), self._steps * _MORE

        def run() -> None:
            for _ in range(steps):
                next(iterator)

        return Case(run, items=steps * batch_size)

    def _build_model(self) -> BimodalMaskedLM:
        model = build_masked_lm(
            self._settings, self._tokenizer, image_tower=self._image_tower
        )
        compile_model(model, self._settings, total_steps=1)
        return model

    def _make_batches(
        self, num_images: int | None = None, **settings: Any
    ) -> CaptionBatches:
        return make_batches(
            self._images[:num_images],
            self._embeddings,
            self._settings.replace(**settings),
            self._tokenizer,
        )

    def _train_live(self, model: keras.Model, batches: CaptionBatches) -> Case:
        """The same batches without end, read anew each time."""
        planned = self._plan(batches)
        dataset = batches.to_dataset(
            lambda: map(batches.gather, itertools.cycle(planned)),
            TEXT_SIGNATURE,
        )
        run = _train_steps(model, dataset, len(planned))
        return Case(run, items=_count_captions(planned))

    def _plan(self, batches: CaptionBatches) -> list[Any]:
        """Batches of an epoch, from the shortest to the longest, evenly."""
        steps = batches.steps_per_epoch
        epoch = itertools.islice(batches.plan(0), steps)
        planned = sorted(epoch, key=lambda each: each.length)
        steps = min(self._steps, len(planned))
        chosen = (np.arange(steps) + 0.5) * len(planned) / steps
        return [planned[int(index)] for index in chosen]

    def _make_cache(
        self, model: BimodalMaskedLM, batches: CaptionBatches
    ) -> MaskedStateCache:
        # Each model has weights, and so states, of its own.
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        return MaskedStateCache(
            batches, model, self._settings, self._tokenizer, folder
        )

    def _cached_data(
        self, model: BimodalMaskedLM, batch_size: int
    ) -> tf.data.Dataset:
        """Batches with the states that the model's ALBERT gives."""
        batches = self._make_batches(_CACHED_IMAGES, batch_size=batch_size)
        return self._make_cache(model, batches).dataset()


def _train_steps(
    model: keras.Model, dataset: tf.data.Dataset, steps: int
) -> Callable[[], None]:
    """Steps of `fit`, without its callbacks, on an endless dataset."""
    model.make_train_function()
    iterator = iter(dataset)

    def run() -> None:
        for _ in range(steps):
            logs = model.train_function(iterator)
        float(logs["loss"])  # Waits for the last step.

    return run


def _count_captions(planned: list[Any]) -> int:
    return sum(len(each.captions) for each in planned)


_subject = cache(_Subject)


def _build(
    case: Callable[..., Case], options: Options, **settings: Any
) -> Case:
    return case(_subject(options), **settings)


CASES = {
    NOTEBOOK: partial(_build, _Subject.notebook),
    ALBERT: partial(_build, _Subject.albert),
    LIVE: partial(_build, _Subject.live),
    BUCKETED: partial(_build, _Subject.live, bucket_width=4),
    CACHING: partial(_build, _Subject.caching),
    CACHED: partial(_build, _Subject.cached),
    CACHED_64: partial(_build, _Subject.cached, batch_size=64),
    READING.format(LIVE): partial(_build, _Subject.read, is_cached=False),
    READING.format(CACHED): partial(_build, _Subject.read),
    READING.format(CACHED_64): partial(_build, _Subject.read, batch_size=64),
}
READING_ROWS = [
    Row(READING.format(name), {READING.format(name): 1}, {name: 1}, at_least=5)
    for name in (LIVE, CACHED, CACHED_64)
]
GROUPS = [
    Group("training", training_rows(), CASES),
    Group("pipeline", READING_ROWS, CASES),
]

if __name__ == "__main__":
    main(__doc__, GROUPS)
