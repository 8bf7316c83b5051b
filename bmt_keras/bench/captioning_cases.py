"""Captioning by passes, beside the bare passes of its models."""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from bmt_keras.bench.case import Case, CaseBuilders, Row
from bmt_keras.bench.corpus import find_tokenizer, read_photos
from bmt_keras.bench.operations import (
    albert_operations,
    fusion_operations,
    head_operations,
    image_operations,
)
from bmt_keras.bench.options import BenchOptions
from bmt_keras.captioner import Captioner
from bmt_keras.data.coco import Photo
from bmt_keras.models import build_image_encoder, build_masked_lm
from bmt_keras.settings import Settings

PRESETS = ("notebook", "coco", "small")
PASSES = (1, 2, 4, 8, 12)
BATCHES = (1, 8)
WORDS = 12  # of the longest candidate: captions have as many on average
WRITING = "{preset}, {passes} passes, batch {batch}"
ENCODING = "{preset}, photo encoding, batch {batch}"
FORWARD = "{preset}, text forward, batch {batch}"
ALBERT = "{preset}, bare ALBERT, batch {batch}"


def captioning_rows() -> list[Row]:
    """The lines about captioning."""
    rows = []
    for preset in PRESETS:
        for batch in BATCHES:
            of = {"preset": preset, "batch": batch}
            encoding, forward = ENCODING.format(**of), FORWARD.format(**of)
            rows.append(Row(encoding, {encoding: 1}))
            albert = ALBERT.format(**of)
            rows.append(Row(forward, {forward: 1}, {albert: 1}))
            for passes in PASSES:
                name = WRITING.format(passes=passes, **of)
                reference = {encoding: 1.0, forward: float(passes)}
                rows.append(Row(name, {name: 1}, reference, at_most=1.15))
    return rows


class CaptioningCases:
    """Builds the cases.

    Args:
        options: What is measured.
        folder: Not used: nothing is written.
    """

    def __init__(self, options: BenchOptions, folder: Path) -> None:
        """Reads photos."""
        self._options = options
        self._photos = read_photos(options)
        self._captioner = cache(self._build_captioner)

    @property
    def builders(self) -> CaseBuilders:
        """How each case is built."""
        kinds = {
            ENCODING: self._encoding,
            FORWARD: self._forward,
            ALBERT: self._albert,
        }
        builders = {}
        for preset in PRESETS:
            for batch in BATCHES:
                for name, build in kinds.items():
                    builders[name.format(preset=preset, batch=batch)] = partial(
                        build, preset, batch
                    )
                for passes in PASSES:
                    name = WRITING.format(
                        preset=preset, passes=passes, batch=batch
                    )
                    builders[name] = partial(
                        self.writing, preset, batch, passes=passes
                    )
        return builders

    def writing(
        self,
        preset: str,
        batch: int,
        *,
        passes: int,
        words: int = WORDS,
        free: bool = True,
    ) -> Case:
        """Photos to captions, by `Captioner.caption`.

        Args:
            preset: Name of the captioner's preset.
            batch: Photos at once.
            passes: Passes.
            words: Words of the longest candidate.
            free: Whether there are several candidates, each a word longer than
                the one before. If not, so many words are asked for.
        """
        captioner = self._captioner(preset)
        rows = captioner.graph.default_options().rows if free else 1
        files = [each.path.read_bytes() for each in self._first(batch)]
        text = text_operations(captioner, batch, rows=batch * rows, words=words)
        image = image_operations(captioner.image_encoder, batch)
        return Case(
            lambda: captioner.caption(
                files,
                passes=passes,
                length=(max(words - rows + 1, 1), words),
                batch_size=batch,
            ),
            items=batch,
            operations=image + passes * text,
        )

    def _encoding(self, preset: str, batch: int) -> Case:
        """All that is computed once of a photo's pixels, for all passes."""
        captioner = self._captioner(preset)
        pixels = np.zeros((batch, *captioner.graph.pixels_shape), np.uint8)

        @tf.function
        def encode(pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
            embedding = captioner.graph.embed_pixels(pixels)
            projected = captioner.model.project_image(embedding)
            return embedding, *tf.nest.flatten(projected or ())

        return Case(
            lambda: encode(pixels)[0].numpy(),
            items=batch,
            operations=image_operations(captioner.image_encoder, batch),
        )

    def _forward(self, preset: str, batch: int) -> Case:
        """The model's logits at all words, of all candidates."""
        captioner = self._captioner(preset)
        model, graph = captioner.model, captioner.graph
        canvas = blank_free_canvas(captioner, batch)
        rows, length = canvas.shape
        shape = (batch, *graph.embedding_shape)
        embedding = tf.zeros(shape)
        projected = model.project_image(embedding)
        if projected is None:
            embedding = tf.repeat(embedding, rows // batch, axis=0)
        places = np.tile(np.arange(1, length - 1, dtype=np.int32), (rows, 1))

        @tf.function
        def forward(token_ids: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
            return model.token_logits(
                token_ids,
                tf.ones_like(token_ids),
                embedding,
                mask_positions=positions,
                projected_image=projected,
                skip_padding=True,
            )

        return Case(
            lambda: forward(canvas, places).numpy(),
            items=batch,
            operations=text_operations(
                captioner, batch, rows=rows, words=WORDS
            ),
        )

    def _albert(self, preset: str, batch: int) -> Case:
        captioner = self._captioner(preset)
        canvas = blank_free_canvas(captioner, batch)
        encode = tf.function(
            partial(captioner.model.encode_text, training=False),
            input_signature=[tf.TensorSpec((None, None), tf.int32)] * 2,
        )
        ones = np.ones_like(canvas)
        return Case(
            lambda: encode(canvas, ones).numpy(),
            items=batch,
            operations=albert_operations(
                captioner.model.text_encoder, *canvas.shape
            ),
        )

    # === What they are made of ===

    def _build_captioner(self, preset: str) -> Captioner:
        return build_captioner(self._options.settings(preset), self._photos)

    def _first(self, count: int) -> Sequence[Photo]:
        places = range(count)
        return [self._photos[i % len(self._photos)] for i in places]


def build_captioner(settings: Settings, photos: Sequence[Photo]) -> Captioner:
    """A captioner of weights that nothing has trained.

    Args:
        settings: Its settings.
        photos: Their captions are the vocabulary, where none is given.
    """
    tokenizer = find_tokenizer(settings, photos)
    keras.utils.set_random_seed(settings.seed)
    encoder = build_image_encoder(settings)
    return Captioner(
        build_masked_lm(settings, tokenizer, image_encoder=encoder),
        tokenizer,
        settings=settings,
        image_encoder=encoder,
        length_counts=[1] * (settings.max_length - 1),
    )


def blank_free_canvas(captioner: Captioner, photos: int) -> np.ndarray:
    """Captions of a word over and over: int32, (rows, length).

    Equal captions of masks alone would be computed once.

    Args:
        captioner: Its decoding tells how many rows a photo has.
        photos: Photos.
    """
    rows = photos * captioner.graph.default_options().rows
    tokenizer = captioner.tokenizer
    ordinary = {*range(tokenizer.vocabulary_size)} - {
        *tokenizer.special_token_ids
    }
    canvas = np.full((rows, WORDS + 2), max(ordinary), np.int32)
    canvas[:, 0] = tokenizer.cls_id
    canvas[:, -1] = tokenizer.sep_id
    return canvas


def text_operations(
    captioner: Captioner, photos: int, *, rows: int, words: int
) -> float:
    """Operations of a pass over all candidates, as if all were as long.

    Args:
        captioner: The captioner.
        photos: Photos.
        rows: Candidates.
        words: Words of each.
    """
    model = captioner.model
    length = words + 2
    return (
        albert_operations(model.text_encoder, rows, length)
        + fusion_operations(model, photos, rows, length)
        + head_operations(model, rows * words)
    )
