"""Pretraining: the text side learns from captions without images."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bmt_keras.captioner import Captioner
from bmt_keras.data.captions import CaptionedImage, read_texts
from bmt_keras.data.features import ImageFeatures
from bmt_keras.data.store import lock_folder
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower
from bmt_keras.presets import resolve_settings
from bmt_keras.settings import Settings
from bmt_keras.training.data import TrainingData, make_tokenizer
from bmt_keras.training.run import Run


def pretrain(
    preset: str = "small",
    *,
    text: str | Path,
    out: str | Path,
    captions: str | Path | None = None,
    split: str | None = None,
    skip_bad: bool = False,
    verbose: int = 1,
    **options: Any,
) -> Captioner:
    """Trains a captioner's text side; `bmt_keras.train(start=...)` follows.

    Args:
        preset: The preset of the training that follows.
        text: Captions, one per line; `.txt` or `.txt.gz`.
        out: Folder of the run; see `Run`.
        captions: Captions in any layout to learn from, too.
        split: Which split of `captions`, if not "train".
        skip_bad: Leave out captions that cannot be used.
        verbose: As for `fit`.
        **options: As for `bmt_keras.train`.

    Returns:
        The captioner, also in `out`, which has not seen an image.

    Raises:
        InputError: An option or a file cannot be used.
    """
    settings = pretraining_settings(preset, options)
    run = Run(settings, Path(out), verbose=verbose)
    with lock_folder(run.out):
        texts = read_lines(text)
        if captions is not None:
            texts += read_texts(captions, split=split, skip_bad=skip_bad)
        blank = CaptionedImage(0, Path(), tuple(texts))
        tokenizer = make_tokenizer(settings, [blank])
        run.check([[blank]], tokenizer)
        seed = settings.optimization.seed
        keras.utils.set_random_seed(seed)
        tower = build_image_tower(settings)
        image = tower.input if settings.image.trainable else tower.output
        # Pixels, or the embeddings of a frozen tower, as from real images.
        dtype = np.uint8 if settings.image.trainable else np.float16
        image = np.zeros((1, *image.shape[1:]), dtype)
        data = text_data(texts, image, seed=seed)
        return run.train(data, tokenizer, tower)


def pretraining_settings(preset: str, options: dict[str, Any]) -> Settings:
    """Gives a preset's settings without what reads images.

    Raises:
        InputError: The fusion is one that needs images.
    """
    # The image tower takes no part: it needs no pretrained weights.
    weights = options.get("image_weights") or "random"
    settings = resolve_settings(preset, {**options, "image_weights": weights})
    settings.expect("to learn without images", fusion="cross_attention")
    # A batch's captions share one blank image, which costs next to nothing.
    return settings.replace(
        group_size=settings.batches.batch_size,
        concept_dim=0,
        self_critical_samples=0,
    )


def read_lines(path: str | Path) -> list[str]:
    """Reads captions, one per line, from UTF-8 text that may be `.gz`.

    Raises:
        InputError: The file is missing, no such text, or empty.
    """
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            texts = [text for line in file if (text := line.strip())]
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{path}: expected a text file of captions, one per line, found "
            f"none that can be read ({type(error).__name__})."
        ) from error
    if len(texts) < 2:
        raise InputError(
            f"{path}: expected at least two captions, one per line, found "
            f"{len(texts)}."
        )
    return texts


def text_data(
    texts: Sequence[str], image: np.ndarray, *, seed: int
) -> TrainingData:
    """Gives captions one image; a twentieth, at most 2000, is for val."""
    order = np.random.default_rng(seed).permutation(len(texts))
    held_out = min(max(len(texts) // 20, 1), 2000)
    train, val = (
        [CaptionedImage(0, Path(), tuple(texts[i] for i in side))]
        for side in (order[held_out:], order[:held_out])
    )
    blank = ImageFeatures(image, {0: 0})
    return TrainingData(train, val, blank, blank)
