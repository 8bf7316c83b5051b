"""Training: the live path and cached states beside the notebook's step."""

import dataclasses
import itertools
import math
import shutil
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.bench.case import Case, CaseBuilders
from bmt_keras.bench.corpus import (
    find_tokenizer,
    random_features,
    read_photos,
)
from bmt_keras.bench.notebook_step import NotebookModel
from bmt_keras.bench.operations import (
    albert_operations,
    fusion_operations,
    head_operations,
    learned_operations,
    unpadded_operations,
)
from bmt_keras.bench.options import BenchOptions
from bmt_keras.bench.steps import (
    count_captions,
    read_batches,
    repeat_batches,
    size_of,
    train_steps,
)
from bmt_keras.bench.training_rows import (
    ALBERT,
    BUCKETED,
    CACHED,
    CACHED_64,
    CACHING,
    LIVE,
    NOTEBOOK,
    PIPELINE,
)
from bmt_keras.data.batch_plan import PlannedBatch
from bmt_keras.data.batches import CaptionBatches
from bmt_keras.models import (
    BimodalMaskedLM,
    build_image_encoder,
    build_masked_lm,
)
from bmt_keras.training.data import make_batches
from bmt_keras.training.optimizer import compile_model
from bmt_keras.training.text_cache import TextCache

_LARGE = 64
_BUCKET_WIDTH = 4
_CACHED_PHOTOS = 52  # about 256 captions, whose states a round computes
_MORE = 10  # times as many cached steps as live ones make up a round


class TrainingCases:
    """Builds the cases, of preset `notebook`.

    Args:
        options: What is measured.
        folder: Takes cached states.
    """

    def __init__(self, options: BenchOptions, folder: Path) -> None:
        """Reads captions and vocabulary."""
        self._options = options
        self._folder = folder
        self._settings = options.settings("notebook")
        photos = read_photos(options)
        self._tokenizer = find_tokenizer(self._settings, photos)
        self._encoder = build_image_encoder(self._settings)
        shape = tuple(self._encoder.output.shape[1:])
        self._photos = photos
        self._features = random_features(photos, shape)

    @property
    def builders(self) -> CaseBuilders:
        """How each case is built."""
        small = self._settings.batch_size
        return {
            NOTEBOOK: self._notebook,
            ALBERT: self._albert,
            LIVE: partial(self._live, bucket_width=0),
            BUCKETED: partial(self._live, bucket_width=_BUCKET_WIDTH),
            CACHING: self._caching,
            CACHED: partial(self._cached, small),
            CACHED_64: partial(self._cached, _LARGE),
            PIPELINE.format(LIVE): self._live_pipeline,
            PIPELINE.format(CACHED): partial(self._cached_pipeline, small),
            PIPELINE.format(CACHED_64): partial(self._cached_pipeline, _LARGE),
        }

    # === Cases ===

    def _notebook(self) -> Case:
        model = self._build_model()
        notebook = NotebookModel(
            model.text_encoder,
            masking=model.masking,
            image_embedding_shape=model.image_embedding_shape,
        )
        compile_model(notebook, self._settings, total_steps=1)
        batches = self._make_batches()
        planned = self._plan(batches)
        return Case(
            train_steps(
                notebook, repeat_batches(batches, planned), len(planned)
            ),
            items=count_captions(planned),
            operations=sum(
                albert_operations(model.text_encoder, rows, length)
                + learned_operations(model, rows, length, rows * length)
                for rows, length in map(size_of, planned)
            ),
        )

    def _albert(self) -> Case:
        model = self._build_model()
        batches = self._make_batches()
        planned = self._plan(batches)
        read = [batches.gather(each) for each in planned]
        encode = tf.function(
            partial(model.encode_text, training=False),
            input_signature=[tf.TensorSpec((None, None), tf.int32)] * 2,
        )

        def run() -> None:
            for batch in read:
                encode(batch["token_ids"], batch["padding_mask"]).numpy()

        return Case(
            run,
            items=count_captions(planned),
            operations=sum(
                albert_operations(model.text_encoder, *size_of(each))
                for each in planned
            ),
        )

    def _live(self, *, bucket_width: int) -> Case:
        model = self._build_model()
        compile_model(model, self._settings, total_steps=1)
        batches = self._make_batches(bucket_width=bucket_width)
        planned = self._plan(batches)
        captions = np.concatenate([each.captions for each in planned])
        return Case(
            train_steps(model, repeat_batches(batches, planned), len(planned)),
            items=count_captions(planned),
            # ALBERT runs at the tokens alone, what is learnt at padding, too.
            operations=unpadded_operations(model, batches.lengths[captions])
            + sum(
                learned_operations(model, rows, length, rows * self._masked)
                for rows, length in map(size_of, planned)
            ),
        )

    def _caching(self) -> Case:
        model = self._build_model()
        batches = self._make_batches(photos=_CACHED_PHOTOS)
        cache = self._cache(model, batches, "caching")

        def run() -> None:
            for states in self._folder.glob("caching/round-*"):
                shutil.rmtree(states)
            cache.dataset()

        return Case(
            run,
            items=len(batches),
            operations=unpadded_operations(model, batches.lengths),
        )

    def _cached(self, batch_size: int) -> Case:
        model, dataset = self._cached_data(batch_size, "cached")
        compile_model(model, self._settings, total_steps=1)
        steps = self._options.steps * _MORE
        captions = steps * batch_size
        masked = captions * self._masked
        trained = sum(math.prod(w.shape) for w in model.trainable_weights)
        embedding = model.text_encoder.token_embedding.embeddings
        return Case(
            train_steps(model, dataset, steps),
            items=captions,
            operations=2
            * (
                fusion_operations(model, captions, captions, 1)
                + head_operations(model, masked)
            ),
            # Adam reads a weight, its gradient and two averages and writes
            # three of them; the head's table is read on both ways.
            bytes=4.0 * steps * (7 * trained + 2 * math.prod(embedding.shape)),
        )

    def _live_pipeline(self) -> Case:
        steps = self._options.steps * _MORE
        return Case(
            read_batches(self._make_batches().dataset(), steps),
            items=steps * self._settings.batch_size,
        )

    def _cached_pipeline(self, batch_size: int) -> Case:
        _, dataset = self._cached_data(batch_size, "pipeline")
        steps = self._options.steps * _MORE
        return Case(read_batches(dataset, steps), items=steps * batch_size)

    # === What they are made of ===

    @cached_property
    def _masked(self) -> float:
        """Masked tokens of a caption."""
        lengths = self._make_batches().lengths
        return self._settings.mask_rate * float(np.mean(lengths))

    def _build_model(self) -> BimodalMaskedLM:
        return build_masked_lm(
            self._settings, self._tokenizer, image_encoder=self._encoder
        )

    def _make_batches(
        self, *, photos: int | None = None, **changes: Any
    ) -> CaptionBatches:
        return make_batches(
            self._photos[:photos],
            self._features,
            dataclasses.replace(self._settings, **changes),
            self._tokenizer,
        )

    def _plan(self, batches: CaptionBatches) -> list[PlannedBatch]:
        """Batches of an epoch, from the shortest to the longest, evenly."""
        epoch = itertools.islice(
            batches.plan.from_step(0), batches.steps_per_epoch
        )
        planned = sorted(epoch, key=lambda each: each.length)
        steps = min(self._options.steps, len(planned))
        places = (np.arange(steps) + 0.5) * len(planned) / steps
        return [planned[int(place)] for place in places]

    def _cache(
        self, model: BimodalMaskedLM, batches: CaptionBatches, name: str
    ) -> TextCache:
        return TextCache(
            batches,
            model,
            settings=dataclasses.replace(self._settings, cached_maskings=1),
            tokenizer=self._tokenizer,
            steps_per_epoch=batches.steps_per_epoch,
            folder=self._folder / name,
        )

    def _cached_data(
        self, batch_size: int, name: str
    ) -> tuple[BimodalMaskedLM, tf.data.Dataset]:
        model = self._build_model()
        batches = self._make_batches(
            photos=_CACHED_PHOTOS, batch_size=batch_size
        )
        name = f"{name}-{batch_size}"
        return model, self._cache(model, batches, name).dataset()
