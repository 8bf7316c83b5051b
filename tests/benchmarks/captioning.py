"""How fast are captions, compared with encoding and bare text passes?

python tests/benchmarks/captioning.py --out benchmarks/captioning.json

A caption of N passes is compared with one encoding of its image (the embedding,
and the keys and values that all passes read) and N bare text forward passes of
as many candidates: ALBERT, fusion and the logits of all tokens.
"""

from functools import cache, partial
from typing import Any

import library
import numpy as np
import tensorflow as tf
from measure import Case, Group, Options, Row, main

PRESETS = ("notebook", "coco", "small")
PASSES = (1, 2, 4, 8, 12)
BATCHES = (1, 8)
TOKENS = 12  # of the longest candidate: captions have as many on average


def make_group(preset: str) -> Group:
    rows, cases = [], {}
    for batch in BATCHES:
        of = {"preset": preset, "batch": batch}
        encoding, bare = (
            f"{preset}, {what}, batch {batch}"
            for what in ("photo encoding", "text forward")
        )
        cases[encoding] = partial(encode, **of)
        cases[bare] = partial(forward, **of)
        rows += [Row(name, {name: 1}) for name in (encoding, bare)]
        for passes in PASSES:
            name = f"{preset}, {passes} passes, batch {batch}"
            cases[name] = partial(write, passes=passes, **of)
            reference = {encoding: 1.0, bare: float(passes)}
            rows.append(Row(name, {name: 1}, reference, at_most=1.15))
    return Group("captioning", rows, cases)


# === What is called of the library ===

_captioner = cache(library.build_captioner)


def write(
    options: Options,
    *,
    preset: str,
    batch: int,
    passes: int,
    tokens: int = TOKENS,
    is_length_free: bool = True,
) -> Case:
    """Files to captions, of `tokens` or of several lengths up to it."""
    captioner = _captioner(options, preset)
    images = library.repeat_images(library.read_images(options), batch)
    files = [image.path.read_bytes() for image in images]
    lengths = captioner.settings.decoding.length_candidates
    fewest = max(tokens - lengths + 1, 1) if is_length_free else tokens
    caption = partial(
        captioner.caption,
        files,
        passes=passes,
        length=(fewest, tokens),
        batch_size=batch,
    )
    return Case(caption, items=batch)


def encode(options: Options, *, preset: str, batch: int) -> Case:
    """All that is computed once of an image's pixels, for all passes."""
    captioner = _captioner(options, preset)
    graph = captioner.graph
    pixels = np.zeros((batch, *graph.pixels_shape), np.uint8)

    @tf.function
    def run(pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        embedding = graph.embed_pixels(pixels)
        projected = captioner.model.project_image(embedding)
        return embedding, *tf.nest.flatten(projected)

    return Case(lambda: run(pixels)[0].numpy(), items=batch)


def forward(options: Options, *, preset: str, batch: int) -> Case:
    """The model's logits at all tokens of all candidates."""
    captioner = _captioner(options, preset)
    canvas = _canvas(captioner, batch)
    embedding = tf.zeros((batch, *captioner.model.image_embedding_shape))
    projected = captioner.model.project_image(embedding)
    positions = np.tile(
        np.arange(1, TOKENS + 1, dtype=np.int32), (len(canvas), 1)
    )

    @tf.function
    def run(token_ids: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        return captioner.model.token_logits(
            token_ids,
            tf.ones_like(token_ids),
            mask_positions=positions,
            projected_image=projected,
            skip_padding=True,
        )

    return Case(lambda: run(canvas, positions).numpy(), items=batch)


def _canvas(captioner: Any, batch: int) -> np.ndarray:
    """Captions of one token over and over: int32, (candidates, length).

    Captions of masks alone are equal, and would be computed once.
    """
    tokenizer = captioner.tokenizer
    special = {*tokenizer.special_token_ids}
    token_id = max({*range(tokenizer.vocabulary_size)} - special)
    candidates = captioner.graph.default_options().num_candidates
    canvas = np.full((batch * candidates, TOKENS + 2), token_id, np.int32)
    canvas[:, 0] = tokenizer.cls_token_id
    canvas[:, -1] = tokenizer.sep_token_id
    return canvas


GROUPS = [make_group(preset) for preset in PRESETS]

if __name__ == "__main__":
    main(__doc__, GROUPS)
