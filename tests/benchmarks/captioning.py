"""How fast are captions, compared with encoding and bare text passes?

python tests/benchmarks/captioning.py --out benchmarks/captioning.json

A caption of N passes is compared with one encoding of its image (the embedding,
and the keys and values that all passes read) and N bare text forward passes of
as many candidates: ALBERT, fusion and the logits of all tokens.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import library
import numpy as np
import tensorflow as tf
from measure import Case, CaseBuilders, Group, Options, Row, main

PRESETS = ("notebook", "coco", "small")
PASSES = (1, 2, 4, 8, 12)
BATCHES = (1, 8)
TOKENS = 12  # of the longest candidate: captions have as many on average
WRITING = "{preset}, {passes} passes, batch {batch}"
ENCODING = "{preset}, photo encoding, batch {batch}"
FORWARD = "{preset}, text forward, batch {batch}"


def make_rows(preset: str) -> list[Row]:
    rows = []
    for batch in BATCHES:
        encoding, forward = (
            name.format(preset=preset, batch=batch)
            for name in (ENCODING, FORWARD)
        )
        rows.append(Row(encoding, {encoding: 1}))
        rows.append(Row(forward, {forward: 1}))
        for passes in PASSES:
            name = WRITING.format(preset=preset, passes=passes, batch=batch)
            reference = {encoding: 1.0, forward: float(passes)}
            rows.append(Row(name, {name: 1}, reference, at_most=1.15))
    return rows


def build_cases(preset: str, options: Options, _: ExitStack) -> CaseBuilders:
    def build(method: str, batch: int, **how: Any) -> Callable[[], Case]:
        return lambda: Case(
            getattr(_subject(options, preset), method)(batch, **how),
            items=batch,
        )

    builders = {}
    for batch in BATCHES:
        of = {"preset": preset, "batch": batch}
        builders[ENCODING.format(**of)] = build("encode", batch)
        builders[FORWARD.format(**of)] = build("forward", batch)
        for passes in PASSES:
            name = WRITING.format(passes=passes, **of)
            builders[name] = build("write", batch, passes=passes)
    return builders


def build_writing(
    options: Options, preset: str, batch: int, **how: Any
) -> Case:
    """Case of images to captions; see `_Subject.write`."""
    return Case(_subject(options, preset).write(batch, **how), items=batch)


@cache
def _subject(options: Options, preset: str) -> "_Subject":
    return _Subject(options, preset)


# === What is called of the library ===


class _Subject:
    """A captioner of a preset; each method gives a function to be timed."""

    def __init__(self, options: Options, preset: str) -> None:
        self._captioner = library.build_captioner(options, preset)
        self._images = library.read_images(options)
        self._candidates = self._captioner.graph.default_options().rows

    def write(
        self,
        batch: int,
        *,
        passes: int,
        tokens: int = TOKENS,
        is_length_free: bool = True,
    ) -> Callable[[], Any]:
        """Files to captions, of `tokens` or of several lengths up to it."""
        images = [self._images[i % len(self._images)] for i in range(batch)]
        files = [image.path.read_bytes() for image in images]
        candidates = self._candidates if is_length_free else 1
        return partial(
            self._captioner.caption,
            files,
            passes=passes,
            length=(max(tokens - candidates + 1, 1), tokens),
            batch_size=batch,
        )

    def encode(self, batch: int) -> Callable[[], Any]:
        """All that is computed once of an image's pixels, for all passes."""
        graph, model = self._captioner.graph, self._captioner.model
        pixels = np.zeros((batch, *graph.pixels_shape), np.uint8)

        @tf.function
        def encode(pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
            embedding = graph.embed_pixels(pixels)
            projected = model.project_image(embedding)
            return embedding, *tf.nest.flatten(projected or ())

        return lambda: encode(pixels)[0].numpy()

    def forward(self, batch: int) -> Callable[[], Any]:
        """The model's logits at all tokens of all candidates."""
        model = self._captioner.model
        canvas = self._canvas(batch)
        rows, length = canvas.shape
        embedding = tf.zeros((batch, *self._captioner.graph.embedding_shape))
        projected = model.project_image(embedding)
        if projected is None:
            embedding = tf.repeat(embedding, rows // batch, axis=0)
        positions = np.tile(np.arange(1, length - 1, dtype=np.int32), (rows, 1))

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

        return lambda: forward(canvas, positions).numpy()

    def _canvas(self, batch: int) -> np.ndarray:
        """Captions of one token over and over: int32, (candidates, length).

        Captions of masks alone are equal, and would be computed once.
        """
        tokenizer = self._captioner.tokenizer
        special = {*tokenizer.special_token_ids}
        token_id = max({*range(tokenizer.vocabulary_size)} - special)
        shape = (batch * self._candidates, TOKENS + 2)
        canvas = np.full(shape, token_id, np.int32)
        canvas[:, 0], canvas[:, -1] = (
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
        )
        return canvas


GROUPS = [
    Group("captioning", make_rows(preset), partial(build_cases, preset))
    for preset in PRESETS
]

if __name__ == "__main__":
    main(__doc__, GROUPS)
