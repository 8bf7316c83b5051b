"""What a run trains on: photos, their features and the vocabulary."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.captions import CaptionedImage, drop_final_period
from bmt_keras.models.checkpoint_files import find_checkpoint
from bmt_keras.data.features import (
    SHARD_SIZE,
    FeatureSource,
    FeatureWriter,
    ImageFeatures,
    prepare_features,
    write_features,
)
from bmt_keras.data.tokenizer import CaptionTokenizer, prune_vocabulary
from bmt_keras.models import fold_batch_norm
from bmt_keras.models.image_towers import fingerprint_weights
from bmt_keras.models.matmul_precision import matmul_precision
from bmt_keras.settings import Settings

# Pixels of a batch. An image model takes less time for each of many small
# photos, and for large ones more than 16 at once bring nothing.
_BATCH_PIXELS = 16 * 299 * 299
_FEWEST, _MOST = 16, 96


@dataclass(frozen=True)
class TrainingData:
    """Photos with captions on both sides, and their features."""

    train: Sequence[CaptionedImage]
    val: Sequence[CaptionedImage]
    train_features: ImageFeatures
    val_features: ImageFeatures


def feature_source(
    settings: Settings, image_tower: keras.Model
) -> FeatureSource:
    """How the photos' features are made: pixels, or a frozen model's output.

    Args:
        settings: The image side is read.
        image_tower: Encodes the pixels if it is frozen.

    Returns:
        The recipe, which also names all that a cache depends on.
    """
    size = (settings.image.height, settings.image.width)
    if settings.image.trainable:
        return FeatureSource(*size)
    folded = fold_batch_norm(image_tower)
    batch_size = round(_BATCH_PIXELS / math.prod(size))

    def encode(pixels: np.ndarray) -> np.ndarray:
        with matmul_precision(settings.image.precision):
            return np.asarray(
                folded.predict_on_batch(pixels.astype(np.float32))
            )

    encoder_settings = {
        "image_model": settings.image.model,
        "image_layer": settings.image.layer,
        "image_pooling": settings.image.pooling,
        "weights": fingerprint_weights(image_tower),
    }
    if settings.image.precision != "float32":
        encoder_settings["precision"] = settings.image.precision
    return FeatureSource(
        *size,
        encode=encode,
        embedding_shape=tuple(image_tower.output.shape[1:]),
        encoder_settings=encoder_settings,
        batch_size=min(max(batch_size, _FEWEST), _MOST),
    )


def prepare_data(
    train: Sequence[CaptionedImage],
    val: Sequence[CaptionedImage],
    source: FeatureSource,
    *,
    cache: Path,
    skip_bad: bool = False,
    shard_size: int = SHARD_SIZE,
    writer: FeatureWriter = write_features,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> TrainingData:
    """Computes or opens the features of both sides.

    Args:
        train: Training photos.
        val: Validation photos.
        source: How features are made.
        cache: Folder of the features, one subfolder a side.
        skip_bad: Leave out photos that cannot be read.
        shard_size: Photos of a shard of features.
        writer: Fills the shards.
        on_progress: Called with the side, photos done and photos in all.

    Returns:
        The data.

    Raises:
        InputError: Photos cannot be read, or the cache is another one's.
    """
    features = {}
    for side, photos in (("train", train), ("val", val)):
        features[side] = prepare_features(
            photos,
            source,
            folder=cache / side,
            skip_bad=skip_bad,
            shard_size=shard_size,
            writer=writer,
            on_progress=_for_side(on_progress, side),
        )
    return TrainingData(train, val, features["train"], features["val"])


def make_tokenizer(
    settings: Settings, photos: Sequence[CaptionedImage]
) -> CaptionTokenizer:
    """Reads the vocabulary, or makes one of the captions' words.

    Args:
        settings: The vocabulary and the text weights are read.
        photos: Training photos.

    Returns:
        The tokenizer: that of the vocabulary's file, else that of the
        pretrained ALBERT, else one of whole words.

    Raises:
        InputError: The file or the checkpoint cannot be read.
    """
    captions = [caption for photo in photos for caption in photo.captions]
    if settings.text.vocabulary:
        tokenizer = CaptionTokenizer.from_file(settings.text.vocabulary)
        if settings.text.prune_vocabulary:
            tokenizer = prune_vocabulary(
                tokenizer, captions, settings.text.min_token_count
            )
        return tokenizer
    if settings.text.weights != "random":
        folder = find_checkpoint(settings.text.weights)
        return CaptionTokenizer.from_checkpoint(folder)
    return CaptionTokenizer.from_captions(captions)


def make_batches(
    photos: Sequence[CaptionedImage],
    features: ImageFeatures,
    settings: Settings,
    tokenizer: CaptionTokenizer,
    **options: Any,
) -> CaptionBatches:
    """Batches as the settings ask for them.

    Args:
        photos: Photos with captions.
        features: Their features.
        settings: Captions, batches and their order are read.
        tokenizer: The tokenizer.
        **options: Other options of `CaptionBatches`.

    Returns:
        The batches.
    """
    inside = settings.image.trainable
    if settings.batches.drop_final_period:
        photos = [
            dataclasses.replace(
                photo, captions=tuple(map(drop_final_period, photo.captions))
            )
            for photo in photos
        ]
    return CaptionBatches(
        photos,
        features,
        tokenizer=tokenizer,
        image_input="images" if inside else "image_embedding",
        batch_size=settings.batches.batch_size,
        sequence_length=settings.text.sequence_length,
        bucket_width=settings.batches.bucket_width,
        group_size=settings.batches.group_size,
        shuffle_buffer=settings.batches.shuffle_buffer,
        seed=settings.optimization.seed,
        **options,
    )


def _for_side(
    on_progress: Callable[[str, int, int], None] | None, side: str
) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    return lambda done, total: on_progress(side, done, total)
