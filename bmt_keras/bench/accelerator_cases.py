"""Training and captioning by batch and precision, for an accelerator.

What a step or a caption takes is measured on inputs that the accelerator holds
already; what reading adds to a step has lines of its own.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.bench.accelerator_rows import (
    BATCHES,
    COMPILED,
    ENCODING,
    FED,
    FLOAT,
    FORWARD,
    HALF,
    PASSES,
    PRESETS,
    STEP,
    WAYS,
    WRITING,
)
from bmt_keras.bench.captioning_cases import (
    WORDS,
    blank_free_canvas,
    build_captioner,
    text_operations,
)
from bmt_keras.bench.case import Case, CaseBuilders
from bmt_keras.bench.corpus import (
    find_tokenizer,
    random_features,
    read_photos,
    repeat_photos,
)
from bmt_keras.bench.operations import (
    fusion_operations,
    head_operations,
    image_operations,
    unpadded_operations,
)
from bmt_keras.bench.options import BenchOptions
from bmt_keras.bench.steps import repeat_batches, train_steps
from bmt_keras.captioner import Captioner
from bmt_keras.data.batch_plan import PlannedBatch
from bmt_keras.data.batches import CaptionBatches
from bmt_keras.models import (
    BimodalMaskedLM,
    build_image_encoder,
    build_masked_lm,
)
from bmt_keras.settings import Settings
from bmt_keras.training.data import make_batches
from bmt_keras.training.optimizer import compile_model

_POLICIES = {
    FLOAT: {"dtype_policy": "float32", "jit_compile": False},
    HALF: {"dtype_policy": "mixed_bfloat16", "jit_compile": False},
    COMPILED: {"dtype_policy": "mixed_bfloat16", "jit_compile": True},
}
# Photos for each caption of a batch: enough captions of one length among them.
_PHOTOS_A_CAPTION = 1.5


class AcceleratorCases:
    """Builds the cases.

    Args:
        options: What is measured.
        folder: Not used: nothing is written.
    """

    def __init__(self, options: BenchOptions, folder: Path) -> None:
        """Reads captions."""
        self._options = options
        self._photos = read_photos(options)
        self._trained = cache(self._build_trained)
        self._batches = cache(self._build_batches)
        self._captioner = cache(self._build_captioner)

    @property
    def builders(self) -> CaseBuilders:
        """How each case is built."""
        builders: dict[str, Callable[[], Case]] = {}
        for preset in PRESETS:
            for batch in BATCHES:
                of = {"preset": preset, "batch": batch}
                encoding = ENCODING.format(**of)
                builders[encoding] = partial(self._encoding, preset, batch)
                fed = FED.format(way=HALF, **of)
                builders[fed] = partial(self._fed, preset, batch)
                for way in WAYS:
                    name = STEP.format(way=way, **of)
                    builders[name] = partial(self._step, preset, batch, way)
                    name = FORWARD.format(way=way, **of)
                    builders[name] = partial(self._forward, preset, batch, way)
                for way in (FLOAT, HALF):
                    name = WRITING.format(passes=PASSES, way=way, **of)
                    builders[name] = partial(self._writing, preset, batch, way)
        return builders

    # === Training ===

    def _step(self, preset: str, batch: int, way: str) -> Case:
        model, train = self._trained(preset, way)
        batches, planned = self._batches(preset, batch)
        data = batches.photos_to_float(batches.gather(planned))
        data = tf.nest.map_structure(tf.constant, data)
        steps = self._options.steps

        def run() -> None:
            for _ in range(steps):
                logs = train(data)
            float(logs["loss"])

        return self._count_steps(run, model, batches, planned)

    def _fed(self, preset: str, batch: int) -> Case:
        model, _ = self._trained(preset, HALF)
        batches, planned = self._batches(preset, batch)
        dataset = repeat_batches(batches, [planned])
        run = train_steps(model, dataset, self._options.steps)
        return self._count_steps(run, model, batches, planned)

    def _count_steps(
        self,
        run: Callable[[], None],
        model: BimodalMaskedLM,
        batches: CaptionBatches,
        planned: PlannedBatch,
    ) -> Case:
        captions, photos = len(planned.captions), len(planned.photo_rows)
        lengths = batches.lengths[planned.captions]
        # Captions are masked at rates of which the mean is a half.
        masked = 0.5 * float(np.sum(lengths))
        forward = (
            unpadded_operations(model, lengths)
            + fusion_operations(model, photos, captions, planned.length)
            + head_operations(model, masked)
        )
        # Gradients of the inputs and of the weights take as much each.
        steps = self._options.steps
        return Case(run, items=steps * captions, operations=3 * steps * forward)

    def _build_trained(
        self, preset: str, way: str
    ) -> tuple[BimodalMaskedLM, Callable[[Any], Mapping[str, Any]]]:
        """A model of a preset, and its step on a batch."""
        settings = self._settings(preset, **_POLICIES[way])
        model = build_masked_lm(
            settings,
            find_tokenizer(settings, self._photos),
            image_encoder=build_image_encoder(settings),
        )
        compile_model(model, settings, total_steps=1000)
        photo = (None, *model.image_embedding_shape)
        signature = {
            "token_ids": tf.TensorSpec((None, None), tf.int32),
            "padding_mask": tf.TensorSpec((None, None), tf.int32),
            model.image_input: tf.TensorSpec(photo, tf.float32),
        }
        # Traced, and so compiled, once for all batches.
        return model, tf.function(model.train_step, input_signature=[signature])

    def _build_batches(
        self, preset: str, batch: int
    ) -> tuple[CaptionBatches, PlannedBatch]:
        """A preset's captions, and a full batch of the commonest length."""
        settings = self._settings(preset, batch_size=batch)
        encoder = build_image_encoder(settings)
        count = max(int(_PHOTOS_A_CAPTION * batch), len(self._photos))
        photos = repeat_photos(self._photos, count)
        batches = make_batches(
            photos,
            random_features(photos, tuple(encoder.output.shape[1:])),
            settings,
            find_tokenizer(settings, self._photos),
        )
        epoch = batches.plan.from_step(0)
        plans = [next(epoch) for _ in range(batches.steps_per_epoch)]
        most = max(len(each.captions) for each in plans)
        full = [each for each in plans if len(each.captions) == most]
        (length, _), *_ = Counter(each.length for each in full).most_common()
        return batches, next(each for each in full if each.length == length)

    # === Captioning ===

    def _encoding(self, preset: str, batch: int) -> Case:
        captioner = self._captioner(preset, FLOAT)
        pixels = self._pixels(captioner, batch)
        embed = tf.function(captioner.graph.embed_pixels)
        return Case(
            lambda: _wait_for(embed(pixels)),
            items=batch,
            operations=image_operations(captioner.image_encoder, batch),
        )

    def _forward(self, preset: str, batch: int, way: str) -> Case:
        """The model's logits at all words, of all candidates."""
        captioner = self._captioner(preset, HALF if way == COMPILED else way)
        model, graph = captioner.model, captioner.graph
        token_ids = tf.constant(blank_free_canvas(captioner, batch))
        embedding = tf.zeros((batch, *graph.embedding_shape))

        @tf.function(jit_compile=way == COMPILED)
        def forward(token_ids: tf.Tensor, embedding: tf.Tensor) -> tf.Tensor:
            return model.token_logits(
                token_ids,
                tf.ones_like(token_ids),
                embedding,
                projected_image=model.project_image(embedding),
                skip_padding=way != COMPILED,
            )

        return Case(
            lambda: _wait_for(forward(token_ids, embedding)),
            items=batch,
            operations=text_operations(
                captioner, batch, rows=token_ids.shape[0], words=WORDS
            ),
        )

    def _writing(self, preset: str, batch: int, way: str) -> Case:
        """From pixels to captions."""
        captioner = self._captioner(preset, way)
        graph = captioner.graph
        options = dataclasses.replace(graph.default_options(), passes=PASSES)
        pixels = self._pixels(captioner, batch)
        fewest = max(WORDS - options.rows + 1, 1)
        bounds = tf.constant([fewest, WORDS])

        @tf.function
        def write(pixels: tf.Tensor) -> tf.Tensor:
            written = graph.write_captions(
                graph.embed_pixels(pixels),
                options=options,
                length_bounds=bounds,
            )
            return written["caption"]

        text = text_operations(
            captioner, batch, rows=batch * options.rows, words=WORDS
        )
        image = image_operations(captioner.image_encoder, batch)
        return Case(
            lambda: write(pixels).numpy(),
            items=batch,
            operations=image + PASSES * text,
        )

    def _build_captioner(self, preset: str, way: str) -> Captioner:
        settings = self._settings(preset, **_POLICIES[way])
        return build_captioner(settings, self._photos)

    def _pixels(self, captioner: Captioner, batch: int) -> tf.Tensor:
        shape = (batch, *captioner.graph.pixels_shape)
        return tf.zeros(shape, tf.uint8)

    def _settings(self, preset: str, **changes: Any) -> Settings:
        return self._options.settings(preset, **changes)


def _wait_for(values: tf.Tensor) -> None:
    """Waits until all is computed, without a copy of it."""
    tf.reshape(values, (-1,))[0].numpy()
