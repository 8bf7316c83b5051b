"""What a run trains on: images, their features and the vocabulary."""

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.captions import CaptionedImage, drop_final_period
from bmt_keras.data.features import (
    FeatureSource,
    ImageFeatures,
    prepare_features,
)
from bmt_keras.data.tokenizer import (
    CaptionTokenizer,
    prune_vocabulary,
    warn_of_cuts,
)
from bmt_keras.errors import InputError
from bmt_keras.evaluation.scores import split_sentences
from bmt_keras.evaluation.words import strip_marks
from bmt_keras.models import build_image_tower, fold_batch_norm
from bmt_keras.models.checkpoint_files import CHECKPOINT_FILES, find_folder
from bmt_keras.models.image_towers import fingerprint_weights
from bmt_keras.models.precision import matmul_precision
from bmt_keras.settings import Settings

# Pixels of a batch, its fewest and its most images: an image tower takes less
# time for many small ones at once, but not for more than 16 large ones.
_BATCH_PIXELS, _FEWEST, _MOST = 16 * 299 * 299, 16, 96
_LETTERS_SHOWN = 20
# Longer than a word of Chinese or Japanese; of Thai, Lao, Burmese or Khmer.
_JOINED_WORDS = re.compile(
    "[\u3040-\u30ff\u3400-\u9fff]{6}"
    "|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]{20}"
)
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Images with captions on both sides, and their features."""

    train: Sequence[CaptionedImage]
    val: Sequence[CaptionedImage]
    train_features: ImageFeatures
    val_features: ImageFeatures

    def validation_features(
        self, limit: int | None = None
    ) -> tuple[list[CaptionedImage], np.ndarray]:
        """The (first) images that could be read, and their features."""
        rows = self.val_features.rows
        good = [each for each in self.val if each.image_id in rows][:limit]
        return good, self.val_features.array[[rows[x.image_id] for x in good]]


def feature_source(
    settings: Settings, image_tower: keras.Model
) -> FeatureSource:
    """How the images' features are made: pixels, or a frozen tower's output.

    The source also names all that a cache depends on.
    """
    size = (settings.image.height, settings.image.width)
    like_opencv = settings.image.like_opencv
    if settings.image.trainable:
        return FeatureSource(*size, like_opencv=like_opencv)
    # Saves a pass over each activation.
    folded = fold_batch_norm(image_tower)
    batch_size = round(_BATCH_PIXELS / math.prod(size))

    def encode(pixels: np.ndarray) -> np.ndarray:
        with matmul_precision(settings.image.precision):
            pixels = pixels.astype(np.float32)
            return np.asarray(folded.predict_on_batch(pixels))

    encoder_settings = {
        "image_model": settings.image.model,
        "image_layer": settings.image.layer,
        "image_pooling": settings.image.pooling,
        # Another file of the same name makes another cache.
        "weights": fingerprint_weights(image_tower),
        "precision": settings.image.precision,
    }
    return FeatureSource(
        *size,
        encode=encode,
        embedding_shape=tuple(image_tower.output.shape[1:]),
        encoder_settings=encoder_settings,
        batch_size=min(max(batch_size, _FEWEST), _MOST),
        like_opencv=like_opencv,
    )


def prepare_data(
    settings: Settings,
    train: Sequence[CaptionedImage],
    val: Sequence[CaptionedImage],
    *,
    image_tower: keras.Model | None = None,
    cache: Path,
    on_progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> TrainingData:
    """Computes or opens the features of both sides.

    Args:
        settings: The image settings and the seed are read.
        train: Training images.
        val: Validation images.
        image_tower: Embeds the images if it is frozen; None builds it.
        cache: Folder of the features, one subfolder per side.
        on_progress: Called with the side, images done and images in all.
        **options: Other options of `prepare_features`.

    Raises:
        InputError: Images cannot be read, or the cache is of something else.
    """
    if image_tower is None:
        # A tower of random weights is the same in every process.
        keras.utils.set_random_seed(settings.optimization.seed)
        image_tower = build_image_tower(settings)
    source = feature_source(settings, image_tower)
    features = [
        prepare_features(
            images,
            source,
            folder=cache / side,
            on_progress=on_progress and partial(on_progress, side),
            **options,
        )
        for side, images in (("train", train), ("val", val))
    ]
    return TrainingData(train, val, *features)


def make_tokenizer(
    settings: Settings, images: Sequence[CaptionedImage]
) -> CaptionTokenizer:
    """Gives the tokenizer that the text settings ask for.

    That of the vocabulary's file, else that of the pretrained ALBERT, else one
    of the whole words of the training images' captions.

    Raises:
        InputError: The file or the checkpoint cannot be read.
    """
    text = settings.text
    captions = [caption for image in images for caption in image.captions]
    if text.vocabulary:
        tokenizer = CaptionTokenizer.from_file(text.vocabulary)
        if not text.prune_vocabulary:
            return tokenizer
        return prune_vocabulary(tokenizer, captions, text.min_token_count)
    # The ids of a pretrained tower are those of its own vocabulary.
    if text.weights != "random":
        folder = find_folder(text.weights, CHECKPOINT_FILES)
        return CaptionTokenizer.from_checkpoint(folder)
    return CaptionTokenizer.from_captions(captions)


def check_captions(
    sides: Sequence[Sequence[CaptionedImage]],
    tokenizer: CaptionTokenizer,
    settings: Settings,
) -> None:
    """Warns of what captions lose, and refuses those that teach nothing.

    Raises:
        InputError: The vocabulary has nothing of them, or whole words of a
            language that does not part its words; or an image of the second
            side, which is scored, has no caption with a word.
    """
    for images in sides[1:]:
        by_people = {image.image_id: image.captions for image in images}
        split_sentences(dict.fromkeys(by_people, ""), by_people)
    texts = [text for x in sides for image in x for text in image.captions]
    if settings.batches.drop_final_period:
        texts = [*map(drop_final_period, texts)]
    token_ids = tokenizer.encode(texts)
    pieces = enumerate(tokenizer.vocabulary)
    words = {i for i, piece in pieces if any(map(str.isalnum, piece))}
    words -= {*tokenizer.special_token_ids}
    if all(words.isdisjoint(ids) for ids in token_ids):
        raise InputError(
            "Expected captions with words of the vocabulary, found none among "
            f"{len(texts)}, such as {texts[0]!r}; give another --vocabulary."
        )
    warn_of_cuts(token_ids, settings.text.sequence_length)
    joined = [text for text in texts if _JOINED_WORDS.search(text)]
    if 2 * len(joined) > len(texts):
        fault = f"{len(joined)} of {len(texts)} captions, such as {joined[0]!r}"
        fault += ", have no spaces between words:"
        if not tokenizer.continuing_token_ids:
            raise InputError(
                f"{fault} give a SentencePiece model of pieces (--vocabulary), "
                "or captions with spaces."
            )
        _LOGGER.warning("%s BLEU, ROUGE-L and CIDEr-D mean little.", fault)
    _report_letters({*"".join("".join(texts).split())}, tokenizer)


def _report_letters(letters: set[str], tokenizer: CaptionTokenizer) -> None:
    plain = {x.lower(): strip_marks(x.lower()) for x in sorted(letters)}
    known = set("".join(tokenizer.vocabulary))
    marked = [x for x in plain if x.isalpha() and plain[x] != x]
    lacking = [x for x in plain if not known.issuperset(plain[x])]
    for what, found in (("writes without marks", marked), ("lacks", lacking)):
        if shown := " ".join(found[:_LETTERS_SHOWN]):
            _LOGGER.warning("Letters that the vocabulary %s: %s", what, shown)


def make_batches(
    images: Sequence[CaptionedImage],
    features: ImageFeatures,
    settings: Settings,
    tokenizer: CaptionTokenizer,
    **options: Any,
) -> CaptionBatches:
    """Gives batches as the settings ask for them; `options` are the others."""
    batches = settings.batches
    if batches.drop_final_period:
        images = [
            dataclasses.replace(
                image, captions=tuple(map(drop_final_period, image.captions))
            )
            for image in images
        ]
    image_input = "images" if settings.image.trainable else "image_embedding"
    return CaptionBatches(
        images,
        features,
        tokenizer=tokenizer,
        image_input=image_input,
        batch_size=batches.batch_size,
        sequence_length=settings.text.sequence_length,
        bucket_width=batches.bucket_width,
        group_size=batches.group_size,
        shuffle_buffer=batches.shuffle_buffer,
        seed=settings.optimization.seed,
        **options,
    )
