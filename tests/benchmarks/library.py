"""What the scripts measure of the library: the presets' models and data.

Weights are random, so that nothing is downloaded.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import corpus
import keras
import numpy as np
from measure import Options

from bmt_keras.captioner import Captioner
from bmt_keras.data.captions import CaptionedImage, read_captions
from bmt_keras.data.features import ImageFeatures
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.models import build_image_tower, build_masked_lm
from bmt_keras.presets import resolve_settings
from bmt_keras.settings import Settings
from bmt_keras.training.data import make_tokenizer

_VOCABULARY = 30_000  # ALBERT's
# Models that are too small to tell anything: `--small`.
_SMALL = {
    "image_model": "MobileNetV2",
    "image_layer": "",
    "image_pooling": 1,
    "image_height": 32,
    "image_width": 32,
    "text_num_layers": 1,
    "text_num_heads": 2,
    "text_embedding_dim": 8,
    "text_hidden_dim": 16,
    "text_intermediate_dim": 16,
    "fusion_num_layers": 1,
    "fusion_num_heads": 2,
    "length_candidates": 2,
}


def make_settings(options: Options, preset: str, **changes: Any) -> Settings:
    """A preset with random weights and what a case or the options change."""
    shared = {
        "text_weights": "random",
        "image_weights": "random",
        "pretrained_head": False,
        "vocabulary": options.vocabulary and str(options.vocabulary),
        **(_SMALL if options.small else {}),
    }
    return resolve_settings(preset, {**shared, **changes})


def read_images(options: Options) -> list[CaptionedImage]:
    """The images' paths and captions."""
    return read_captions(options.captions, options.images, limit=options.limit)


def repeat_images(
    images: Sequence[CaptionedImage], count: int
) -> list[CaptionedImage]:
    """As many images as asked for, with ids of their own."""
    return [
        dataclasses.replace(image, image_id=number)
        for number, image in zip(range(count), itertools.cycle(images))
    ]


def find_tokenizer(
    settings: Settings, images: Sequence[CaptionedImage]
) -> CaptionTokenizer:
    """A run's tokenizer; a made vocabulary is as large as ALBERT's."""
    if settings.text.vocabulary or settings.text.prune_vocabulary:
        return make_tokenizer(settings, images)
    captions = [caption for image in images for caption in image.captions]
    known = CaptionTokenizer.from_captions(captions).vocabulary_size
    # Digits keep the other words apart from the captions' own. One word per
    # line: SentencePiece leaves out lines that are too long.
    others = [f"{word}0" for word in corpus.make_words(_VOCABULARY - known)]
    return CaptionTokenizer.from_captions([*captions, *others])


def random_embeddings(
    images: Sequence[CaptionedImage], shape: tuple[int, ...]
) -> ImageFeatures:
    """Embeddings whose numbers mean nothing: float16, in memory."""
    rng = np.random.default_rng(0)
    array = rng.random((len(images), *shape), np.float32).astype(np.float16)
    rows = {image.image_id: row for row, image in enumerate(images)}
    return ImageFeatures(array, rows)


def build_captioner(options: Options, preset: str) -> Captioner:
    """A captioner that nothing has trained."""
    settings = make_settings(options, preset)
    tokenizer = find_tokenizer(settings, read_images(options))
    keras.utils.set_random_seed(settings.optimization.seed)
    image_tower = build_image_tower(settings)
    return Captioner(
        build_masked_lm(settings, tokenizer, image_tower=image_tower),
        tokenizer,
        settings=settings,
        image_tower=image_tower,
        length_counts=[1] * (settings.text.max_caption_tokens + 1),
    )
