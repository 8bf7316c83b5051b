"""A training run: a folder that the same call goes on with after a stop."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmt_keras.captioner import Captioner
from bmt_keras.captioner.guesses import calibrate
from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.models import (
    BimodalMaskedLM,
    build_image_tower,
    build_masked_lm,
    set_matmul_precision,
)
from bmt_keras.models.lora import add_lora, merge_lora
from bmt_keras.models.precision import copy_in_float32
from bmt_keras.presets import resolve_settings
from bmt_keras.progress import show_progress
from bmt_keras.settings import Settings
from bmt_keras.training.callbacks import drop_epochs, run_callbacks
from bmt_keras.training.checkpoints import copy_weights, load_last
from bmt_keras.training.data import (
    TrainingData,
    make_batches,
    make_tokenizer,
    prepare_data,
    read_sides,
)
from bmt_keras.training.distributed import (
    SharedBatches,
    check_replicas,
    check_same_step,
    chief_first,
    detect_lost_worker,
    fit_model_to_replicas,
    is_chief,
    open_strategy,
    wait_for_workers,
)
from bmt_keras.training.masked_state_cache import MaskedStateCache
from bmt_keras.training.optimizer import compile_model, count_batches
from bmt_keras.training.preparation import prepare_in_own_process
from bmt_keras.training.self_critical import (
    SelfCriticalBatches,
    SelfCriticalLM,
    copy_as,
    without_regularization,
)

_LOGGER = logging.getLogger(__name__)
_SETTINGS, _HISTORY = "settings.json", "history.csv"

_Source = (
    CaptionBatches | SharedBatches | MaskedStateCache | SelfCriticalBatches
)


def train(
    preset: str = "sample",
    *,
    captions: str | Path,
    images: str | Path,
    out: str | Path,
    val_captions: str | Path | None = None,
    val_images: str | Path | None = None,
    val_share: float = 0.2,
    start: str | Path | None = None,
    limit: int | None = None,
    cache: str | Path | None = None,
    skip_bad: bool = False,
    strategy: str | tf.distribute.Strategy | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
    **options: Any,
) -> Captioner:
    """Trains a captioner on images and captions, and evaluates it.

    The same call goes on after a stop. A frozen image tower embeds the images
    in a process of its own: a script calls this under
    `if __name__ == "__main__":`, as `multiprocessing` asks for.

    Args:
        preset: Name of the preset, one of `bmt_keras.presets.PRESETS`.
        captions: Captions in COCO's format (JSON).
        images: Folder of the images.
        out: Folder of the run; see `Run`.
        val_captions: Captions of the validation images; None holds out a
            share of the others.
        val_images: Folder of the validation images.
        val_share: Share of the images held out, in (0, 1).
        start: Begin with the weights and the vocabulary of the captioner in
            this folder, or of what `bmt pretrain` wrote.
        limit: Use only the first N images of each file.
        cache: Folder of the images' pixels or embeddings; None for one in
            `out`.
        skip_bad: Leave out images that cannot be read.
        strategy: Shares each batch: `"mirrored"`, `"multi-worker"`, `"tpu"` or
            a strategy that is open.
        callbacks: More callbacks for `fit`.
        verbose: 1 for a progress bar, 2 for a line per epoch, 0 for silence.
        **options: The settings' options that differ from the preset's, by
            their flat names, such as `image_height=128`.

    Returns:
        The captioner, which is also saved in `out`.

    Raises:
        InputError: An option, a file or an image cannot be used; the message
            says which and why.
        LostWorkerError: Another worker of the strategy has ended.

    Example:
        >>> captioner = bmt_keras.train(
        ...     "small", captions="captions.json", images="images",
        ...     out="runs/mine", epochs=4,
        ... )
    """
    settings = resolve_settings(preset, options)
    out = Path(out)
    sides = read_sides(
        captions,
        images,
        val_captions=val_captions,
        val_images=val_images,
        val_share=val_share,
        limit=limit,
        seed=settings.optimization.seed,
    )
    if isinstance(strategy, str):
        strategy = open_strategy(strategy)
    check_run(settings, out, strategy=strategy, is_fresh=start is None)
    with detect_lost_worker(strategy):
        first = Captioner.from_preset(start) if start else None
        # What can be wrong is read before images are embedded for hours.
        tokenizer = (
            first.tokenizer if first else make_tokenizer(settings, sides[0])
        )
        cache = Path(cache or out / "cache")
        tower, data = _open_data(settings, *sides, cache, skip_bad, strategy)
        run = Run(
            data,
            settings,
            tokenizer=tokenizer,
            image_tower=tower,
            out=out,
            start=first.model if first else None,
            callbacks=callbacks,
            verbose=verbose,
            strategy=strategy,
        )
        run.train()
        if run.is_chief:
            run.evaluate()
        wait_for_workers(strategy)
    return run.captioner


@dataclass
class Run:
    """Trains a captioner, going on from the last checkpoint of its folder.

    Where several workers train, all make the same run; the chief alone writes.
    A run with `self_critical_samples` trains without dropout and label
    smoothing, whatever the settings say.

    Args:
        data: Images, captions and features.
        settings: The settings.
        tokenizer: The tokenizer.
        image_tower: The model behind the features. One that is trained must
            have been built in the strategy's scope.
        out: Folder of the run: `settings.json`, `checkpoints/`,
            `tensorboard/`, `history.csv`, at the end `captioner/`; with cached
            maskings `text_states/`.
        start: Begin with the weights of this model instead of fresh ones.
        callbacks: More callbacks for `fit`, called after the run's own.
        verbose: As for `bmt_keras.train`.
        strategy: Shares each batch among its replicas.

    Raises:
        InputError: As from `check_run`.
    """

    data: TrainingData
    settings: Settings
    _: KW_ONLY
    tokenizer: CaptionTokenizer
    image_tower: keras.Model
    out: Path
    start: BimodalMaskedLM | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    verbose: int = 1
    strategy: tf.distribute.Strategy | None = None

    def __post_init__(self) -> None:
        """Checks that the run can begin, or go on."""
        is_fresh = self.start is None
        check_run(
            self.settings, self.out, strategy=self.strategy, is_fresh=is_fresh
        )
        self.settings = without_regularization(self.settings)
        self.is_chief = is_chief(self.strategy)
        self.verbose = self.verbose if self.is_chief else 0

    def train(self) -> Captioner:
        """Trains, or goes on, to the last epoch, and saves the captioner.

        Returns:
            The captioner, which is also in `captioner/` of the run's folder.

        Raises:
            InputError: The folder's cached maskings are of something else, or
                `start` is of another shape.
        """
        if self.is_chief:
            self.out.mkdir(parents=True, exist_ok=True)
            self.settings.save(self.out / _SETTINGS)
        self._make_batches()
        self._build_or_resume()
        # The same object as in the callbacks: it writes their captions.
        self.captioner = self._assemble(self.model)
        self._fit(self._training_source())
        self._finish_model()
        if self.is_chief:
            calibrate(self.captioner, self.data.val, self.data.val_features)
            self.captioner.save_to_preset(self.out / "captioner")
        wait_for_workers(self.strategy)
        return self.captioner

    def evaluate(self) -> None:
        """Scores the captioner on the validation images, into the folder."""
        # Both need packages that a run without scores does without.
        from bmt_keras.evaluation.model_metrics import evaluate_captioner
        from bmt_keras.evaluation.plots import plot_history

        plot_history(self.out / _HISTORY, self.out / "curves.png")
        evaluate_captioner(
            self.captioner,
            *self.data.validation_features(),
            out=self.out,
            training_captions=[
                text for image in self.data.train for text in image.captions
            ],
        )

    # === Steps ===

    def _make_batches(self) -> None:
        data, settings = self.data, self.settings
        self.train_batches = make_batches(
            data.train,
            data.train_features,
            settings,
            self.tokenizer,
            captions_per_image=settings.batches.captions_per_image,
            mirror=settings.batches.mirror,
        )
        self.val_batches = make_batches(
            data.val, data.val_features, settings, self.tokenizer, shuffle=False
        )
        self.steps_per_epoch = (
            settings.optimization.steps_per_epoch
            or self.train_batches.steps_per_epoch
        )

    def _build_or_resume(self) -> None:
        set_matmul_precision(self.settings.optimization.matmul_precision)
        # Variables made outside of it would have no replicas.
        with self.strategy.scope() if self.strategy else nullcontext():
            self.model = load_last(self.out / "checkpoints") or self._build()
        # A checkpoint holds those of the run before.
        self.model.concept_weight = self.settings.fusion.concept_weight
        jit_compile = self.settings.optimization.jit_compile
        if self.model.uses_xla != jit_compile:
            # The optimizer keeps its state.
            self.model.compile(
                optimizer=self.model.optimizer, jit_compile=jit_compile
            )
        # Workers with folders of their own would wait for each other for ever.
        check_same_step(self.strategy, self._step)
        if self.strategy is not None:
            fit_model_to_replicas(self.model, self.strategy)

    def _build(self) -> BimodalMaskedLM:
        """A compiled model with what is known before the first step."""
        steps = self.settings.optimization
        keras.utils.set_random_seed(steps.seed)
        model = build_masked_lm(
            self.settings, self.tokenizer, image_tower=self.image_tower
        )
        size = self.tokenizer.vocabulary_size
        if self.start is not None:
            copy_weights(self.start, model)
        elif self.settings.text.weights == "random":
            _set_bias(model, self.train_batches.count_tokens(size))
        if model.concept_head is not None:
            model.concept_head.adapt(self.train_batches.share_of_captions(size))
        if self.settings.text.lora_rank:
            model = add_lora(model, self.settings.text.lora_rank)
        if steps.self_critical_samples:
            model = copy_as(SelfCriticalLM, model)
        compile_model(model, self.settings, steps.epochs * self.steps_per_epoch)
        return model

    def _assemble(self, model: BimodalMaskedLM) -> Captioner:
        most = self.settings.text.max_caption_tokens
        lengths = np.bincount(self.train_batches.lengths, minlength=most + 1)
        return Captioner(
            model,
            self.tokenizer,
            settings=self.settings,
            image_tower=self.image_tower,
            length_counts=lengths.tolist(),
        )

    def _training_source(self) -> _Source:
        """What the steps learn from: one of four kinds of batches."""
        if self.settings.batches.cached_maskings:
            return MaskedStateCache(
                self.train_batches,
                self.model,
                settings=self.settings,
                tokenizer=self.tokenizer,
                steps_per_epoch=self.steps_per_epoch,
                folder=self.out / "text_states",
                show_progress=lambda: show_progress("Running the text tower"),
            )
        if samples := self.settings.optimization.self_critical_samples:
            return SelfCriticalBatches(
                self.train_batches,
                self.captioner,
                {each.image_id: each.captions for each in self.data.train},
                num_samples=samples,
                seed=self.settings.optimization.seed,
            )
        return self._shared(self.train_batches)

    def _shared(self, batches: CaptionBatches) -> _Source:
        strategy = self.strategy
        return SharedBatches(batches, strategy) if strategy else batches

    def _fit(self, source: _Source) -> None:
        """Fits from the model's step to the last one."""
        epochs = self.settings.optimization.epochs
        # Cached maskings of a round are used up before the next are drawn.
        round_epochs = self.settings.batches.redraw_epochs or epochs
        validation = self._shared(self.val_batches)
        while (step := self._step) < epochs * self.steps_per_epoch:
            epoch, done = divmod(step, self.steps_per_epoch)
            if step:
                _LOGGER.info("Going on at step %d (epoch %d).", step, epoch + 1)
                if self.is_chief:
                    drop_epochs(self.out / _HISTORY, epoch)
            elif self.verbose:
                # A compiled model's own counts its optimizer's variables, too.
                model = self.model
                keras.Model(
                    model.inputs, model.outputs, name=model.name
                ).summary()
            round_end = (epoch // round_epochs + 1) * round_epochs
            self.model.fit(
                source.dataset(start_step=step),
                steps_per_epoch=self.steps_per_epoch - done,
                initial_epoch=epoch,
                # `fit` only begins at an epoch's first step: one that stopped
                # in the middle is ended first.
                epochs=epoch + 1 if done else min(round_end, epochs),
                validation_data=validation.dataset(),
                validation_steps=self.val_batches.steps_per_epoch,
                shuffle=False,
                callbacks=self._fit_callbacks,
                verbose=self.verbose,
            )

    @property
    def _step(self) -> int:
        return count_batches(self.model.optimizer)

    @cached_property
    def _fit_callbacks(self) -> list[keras.callbacks.Callback]:
        callbacks: list[keras.callbacks.Callback] = []
        if self.settings.optimization.ema_momentum:
            # Swaps the average in while the model is validated.
            callbacks.append(keras.callbacks.SwapEMAWeights())
        if self.is_chief:
            callbacks += run_callbacks(
                self.out, self.out / _HISTORY, self.captioner, self.data
            )
        return [*callbacks, *self.callbacks]

    def _finish_model(self) -> None:
        """From the model that learned to an ordinary one in float32."""
        model, steps = self.model, self.settings.optimization
        # The average is that of LoRA's factors, so it comes before the merge.
        if steps.ema_momentum:
            model.optimizer.take_average(model.trainable_variables)
        if self.settings.text.lora_rank:
            model = merge_lora(model)
        if steps.self_critical_samples:
            model = copy_as(BimodalMaskedLM, model)
        if steps.dtype_policy != "float32":
            model = copy_in_float32(model)
        if model is not self.model:
            self.captioner = self._assemble(model)


def check_run(
    settings: Settings,
    out: Path,
    *,
    strategy: tf.distribute.Strategy | None = None,
    is_fresh: bool = True,
) -> None:
    """Checks that a run can begin in a folder, or go on.

    Raises:
        InputError: The folder is a run's with other settings, or a setting
            does not go with a strategy or with a fresh model.
    """
    check_replicas(settings, strategy)
    samples = settings.optimization.self_critical_samples
    if samples and is_fresh:
        raise InputError(
            "`self_critical_samples` must be 0 without `start`: it is for a "
            "captioner that has learned. Received: "
            f"self_critical_samples={samples}."
        )
    if not (out / _SETTINGS).exists():
        return
    settings = without_regularization(settings)
    found = Settings.load(out / _SETTINGS)
    for name, _, field in Settings.options():
        ours, theirs = settings.get(name), found.get(name)
        if ours != theirs and not field.metadata["may_change"]:
            raise InputError(
                f"{out}: the folder holds a run with other settings: "
                f"`{name}` is {theirs!r} there, expected {ours!r}; "
                "give another --out, or delete the folder."
            )


def _open_data(
    settings: Settings,
    train: Sequence[CaptionedImage],
    val: Sequence[CaptionedImage],
    cache: Path,
    skip_bad: bool,
    strategy: tf.distribute.Strategy | None,
) -> tuple[keras.Model, TrainingData]:
    """The image tower, and the features that it or the cache gives."""
    keras.utils.set_random_seed(settings.optimization.seed)
    # A tower that is trained has replicas.
    trained = strategy if settings.image.trainable else None
    with trained.scope() if trained else nullcontext():
        tower = build_image_tower(settings)
    files: dict[str, Any] = {"cache": cache, "skip_bad": skip_bad}
    with chief_first(strategy), show_progress("Reading images") as on_progress:
        files["on_progress"] = on_progress
        if not settings.image.trainable:
            prepare_in_own_process(settings, train, val, **files)
        data = prepare_data(settings, train, val, image_tower=tower, **files)
    return tower, data


def _set_bias(model: BimodalMaskedLM, counts: np.ndarray) -> None:
    """Sets the head's bias to the log-frequencies of the tokens."""
    # A fresh model would spend its first hundreds of steps on learning these.
    shares = (counts + 0.5) / (counts + 0.5).sum()
    log_shares = np.log(shares)
    model.head.bias.assign(log_shares - log_shares.mean())
