"""A training run: a folder that the same call goes on with after a stop."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmt_keras.captioner import Captioner
from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.models import BimodalMaskedLM, build_masked_lm
from bmt_keras.models.lora import add_lora, merge_lora
from bmt_keras.models.model_copy import copy_in_float32
from bmt_keras.settings import Settings
from bmt_keras.training.calibration import calibrate
from bmt_keras.training.callbacks import (
    CaptionLog,
    LearningRateLog,
    drop_epochs,
)
from bmt_keras.training.checkpoints import Checkpoints, load_last
from bmt_keras.training.data import TrainingData, make_batches
from bmt_keras.training.masked_state_cache import MaskedStateCache, Progress
from bmt_keras.training.optimizer import compile_model, count_batches
from bmt_keras.training.replicas import (
    check_replicas,
    distribute_batches,
    fit_model_to_replicas,
)
from bmt_keras.training.start import copy_weights, start_from_frequencies
from bmt_keras.training.strategies import (
    check_same_step,
    is_chief,
    wait_for_workers,
)

_LOGGER = logging.getLogger(__name__)
_SETTINGS, _HISTORY = "settings.json", "history.csv"
_WATCHED = 6  # captions shown in TensorBoard each epoch


def train_captioner(
    data: TrainingData,
    settings: Settings,
    *,
    tokenizer: CaptionTokenizer,
    image_tower: keras.Model,
    out: Path,
    start: BimodalMaskedLM | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
    show_caching: Progress | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Captioner:
    """Trains a captioner, going on from the last checkpoint in `out`.

    Where several workers train, all call this alike; the chief alone writes.

    Args:
        data: Photos and features.
        settings: The settings.
        tokenizer: The tokenizer.
        image_tower: The model behind the features.
        out: Folder of the run: `checkpoints/`, `tensorboard/`, `history.csv`
            and at the end `captioner/`; with cached maskings `text_states/`.
        start: Begin with the weights of this model instead of fresh ones.
        callbacks: More callbacks for `fit`, called after the run's own.
        verbose: As for `fit`: 1 a progress bar, 2 a line an epoch, 0 silent.
        show_caching: As `MaskedStateCache` takes it.
        strategy: Shares each batch among its replicas. An image encoder that
            is trained along must have been built in its scope.

    Returns:
        The captioner, which is also saved in `out`.

    Raises:
        InputError: `out` is the folder of a run with other settings, or holds
            cached maskings of something else, or `start` is of another shape,
            or a setting does not go with the strategy.
    """
    check_run_folder(out, settings)
    if strategy is not None:
        check_replicas(settings, strategy.num_replicas_in_sync)
    chief = is_chief(strategy)
    if chief:
        out.mkdir(parents=True, exist_ok=True)
        settings.save(out / _SETTINGS)
    train = make_batches(
        data.train,
        data.train_features,
        settings,
        tokenizer,
        captions_per_image=settings.batches.captions_per_image,
        mirror=settings.batches.mirror,
    )
    val = make_batches(
        data.val, data.val_features, settings, tokenizer, shuffle=False
    )
    steps_per_epoch = (
        settings.optimization.steps_per_epoch or train.steps_per_epoch
    )
    with nullcontext() if strategy is None else strategy.scope():
        model = load_last(out / "checkpoints")
        is_fresh = model is None
        if model is None:
            total_steps = settings.optimization.epochs * steps_per_epoch
            model = _build_compiled(
                settings, tokenizer, image_tower, total_steps, start
            )
    if is_fresh and start is None and settings.text.weights == "random":
        start_from_frequencies(
            model, train.count_tokens(tokenizer.vocabulary_size)
        )
    if is_fresh and model.concept_head is not None:
        model.concept_head.adapt(
            train.share_of_captions(tokenizer.vocabulary_size)
        )
    # A checkpoint holds those of the run before.
    model.concept_weight = settings.fusion.concept_weight
    if model.uses_xla != settings.optimization.jit_compile:
        model.compile(
            optimizer=model.optimizer,
            jit_compile=settings.optimization.jit_compile,
        )
    check_same_step(strategy, count_batches(model.optimizer))
    if strategy is not None:
        fit_model_to_replicas(model, strategy)
    assemble = partial(
        Captioner,
        tokenizer=tokenizer,
        settings=settings,
        image_tower=image_tower,
        length_counts=np.bincount(
            train.lengths, minlength=settings.text.sequence_length - 1
        ).tolist(),
    )
    captioner = assemble(model)
    source: CaptionBatches | MaskedStateCache = train
    if settings.batches.cached_maskings:
        source = MaskedStateCache(
            train,
            model,
            settings=settings,
            tokenizer=tokenizer,
            steps_per_epoch=steps_per_epoch,
            folder=out / "text_states",
            show_progress=show_caching,
        )
    _fit(
        model,
        source,
        val,
        epochs=settings.optimization.epochs,
        epochs_of_dataset=settings.batches.redraw_epochs
        or settings.optimization.epochs,
        steps_per_epoch=steps_per_epoch,
        history=out / _HISTORY if chief else None,
        callbacks=[
            *_all_workers_callbacks(settings),
            *(_own_callbacks(out, captioner, data) if chief else ()),
            *callbacks,
        ],
        verbose=verbose if chief else 0,
        strategy=strategy,
    )
    if settings.optimization.ema_momentum:
        model.optimizer.take_average(model.trainable_variables)
    trained = merge_lora(model) if settings.text.lora_rank else model
    if settings.optimization.dtype_policy != "float32":
        trained = copy_in_float32(trained)
    if trained is not model:
        captioner = assemble(trained)
    if chief:
        calibrate(captioner, data)
        captioner.save(out / "captioner")
    wait_for_workers(strategy)
    return captioner


def check_run_folder(out: Path, settings: Settings) -> None:
    """Checks that a folder is free, or the same run's.

    Args:
        out: The folder.
        settings: The run's settings.

    Raises:
        InputError: The folder is a run's with other settings.
    """
    path = out / _SETTINGS
    if not path.exists():
        return
    found = Settings.load(path)
    for name, _, field in Settings.options():
        ours, theirs = settings.get(name), found.get(name)
        if ours != theirs and not field.metadata["may_change"]:
            raise InputError(
                f"{out}: the folder holds a run with other settings: "
                f"`{name}` is {theirs!r} there, expected {ours!r}; "
                "give another --out, or delete the folder."
            )


def _build_compiled(
    settings: Settings,
    tokenizer: CaptionTokenizer,
    image_tower: keras.Model,
    total_steps: int,
    start: BimodalMaskedLM | None,
) -> BimodalMaskedLM:
    keras.utils.set_random_seed(settings.optimization.seed)
    model = build_masked_lm(settings, tokenizer, image_tower=image_tower)
    if start is not None:
        copy_weights(start, model)
    if settings.text.lora_rank:
        model = add_lora(model, settings.text.lora_rank)
    compile_model(model, settings, total_steps)
    return model


def _fit(
    model: BimodalMaskedLM,
    train: CaptionBatches | MaskedStateCache,
    val: CaptionBatches,
    *,
    epochs: int,
    epochs_of_dataset: int,
    steps_per_epoch: int,
    history: Path | None,
    callbacks: list[keras.callbacks.Callback],
    verbose: int,
    strategy: tf.distribute.Strategy | None = None,
) -> None:
    """Fits from the model's step to the last one.

    A run that stopped within an epoch first ends that epoch: `fit` itself
    only begins at an epoch's first step.
    """
    while (step := count_batches(model.optimizer)) < epochs * steps_per_epoch:
        epoch, done = divmod(step, steps_per_epoch)
        if step:
            _LOGGER.info("Going on at step %d (epoch %d).", step, epoch + 1)
            if history is not None:
                drop_epochs(history, epoch)
        # A round of cached maskings ends before the next one is drawn.
        end = (epoch // epochs_of_dataset + 1) * epochs_of_dataset
        model.fit(
            _dataset(train, strategy, start_step=step),
            steps_per_epoch=steps_per_epoch - done,
            initial_epoch=epoch,
            epochs=epoch + 1 if done else min(end, epochs),
            validation_data=_dataset(val, strategy),
            validation_steps=val.steps_per_epoch,
            shuffle=False,
            callbacks=callbacks,
            verbose=verbose,
        )


def _dataset(
    batches: CaptionBatches | MaskedStateCache,
    strategy: tf.distribute.Strategy | None,
    *,
    start_step: int = 0,
) -> Any:
    if strategy is None or isinstance(batches, MaskedStateCache):
        return batches.dataset(start_step=start_step)
    return distribute_batches(batches, strategy, start_step=start_step)


def _all_workers_callbacks(
    settings: Settings,
) -> list[keras.callbacks.Callback]:
    # Swaps the average in while the model is validated.
    return (
        [keras.callbacks.SwapEMAWeights()]
        if settings.optimization.ema_momentum
        else []
    )


def _own_callbacks(
    out: Path, captioner: Captioner, data: TrainingData
) -> list[keras.callbacks.Callback]:
    watched = [p for p in data.val if p.image_id in data.val_features.rows]
    watched = watched[:_WATCHED]
    rows = [data.val_features.rows[photo.image_id] for photo in watched]
    settings = captioner.settings
    return [
        Checkpoints(
            out / "checkpoints",
            every_steps=settings.optimization.checkpoint_steps,
            every_epochs=settings.optimization.checkpoint_epochs,
            keep=settings.optimization.keep_checkpoints,
        ),
        LearningRateLog(),
        keras.callbacks.CSVLogger(out / _HISTORY, append=True),
        keras.callbacks.TensorBoard(
            out / "tensorboard", write_graph=False, update_freq="epoch"
        ),
        CaptionLog(
            out / "tensorboard" / "captions",
            features=data.val_features.array[rows],
            references={p.image_id: p.captions[0] for p in watched},
            caption=lambda features: [
                caption.text for caption in captioner.caption_features(features)
            ],
        ),
    ]
