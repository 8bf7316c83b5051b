"""One run of two phases: people's captions, then the captioner's own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from bmt_keras.captioner import Captioner
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.settings import Settings
from bmt_keras.training.data import TrainingData
from bmt_keras.training.run import train_captioner
from bmt_keras.training.text_cache import Progress

SECOND_PHASE = "cider"


def train_in_phases(
    data: TrainingData,
    settings: Settings,
    *,
    tokenizer: CaptionTokenizer,
    image_encoder: keras.Model,
    out: Path,
    start: BimodalMaskedLM | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
    show_caching: Progress | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Captioner:
    """Trains a captioner, with `settings.cider_epochs` by CIDEr-D at the end.

    Args:
        data: Photos and features.
        settings: The settings.
        tokenizer: The tokenizer.
        image_encoder: The model behind the features.
        out: Folder of the run; the second phase has one of its own in it,
            `cider/`.
        start: Begin with the weights of this model instead of fresh ones.
        callbacks: More callbacks for `fit`.
        verbose: As for `fit`.
        show_caching: As for `train_captioner`.
        strategy: As for `train_captioner`.

    Returns:
        The captioner, which is also saved in `out`.

    Raises:
        InputError: As `train_captioner`.
    """
    captioner = train_captioner(
        data,
        settings,
        tokenizer=tokenizer,
        image_encoder=image_encoder,
        out=out,
        start=start,
        callbacks=callbacks,
        verbose=verbose,
        show_caching=show_caching,
        strategy=strategy,
    )
    if not settings.cider_epochs:
        return captioner
    captioner = train_captioner(
        data,
        dataclasses.replace(
            settings,
            objective="cider",
            epochs=settings.cider_epochs,
            learning_rate=settings.cider_learning_rate,
            cider_epochs=0,
        ),
        tokenizer=tokenizer,
        image_encoder=image_encoder,
        out=out / SECOND_PHASE,
        start=captioner.model,
        callbacks=callbacks,
        verbose=verbose,
    )
    captioner.save(out / "captioner")
    return captioner
