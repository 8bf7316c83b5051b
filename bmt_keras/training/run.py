"""A training run: a folder that the same call goes on with after a stop."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmt_keras.atomic import write_atomically
from bmt_keras.captioner import Captioner
from bmt_keras.captioner.calibration import calibrate
from bmt_keras.data.captions import CaptionedImage, read_sides
from bmt_keras.data.store import lock_folder
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
from bmt_keras.progress import show_progress, watch
from bmt_keras.settings import Settings
from bmt_keras.training import distributed
from bmt_keras.training.callbacks import (
    Checkpoints,
    Steps,
    drop_epochs,
    load_last,
    log_captions,
)
from bmt_keras.training.data import (
    TrainingData,
    check_captions,
    make_batches,
    make_tokenizer,
)
from bmt_keras.training.identity import check_identity, identify
from bmt_keras.training.masked_state_cache import MaskedStateCache
from bmt_keras.training.optimizer import compile_model, count_batches
from bmt_keras.training.own_process import call_in_own_process, prepare_data
from bmt_keras.training.self_critical import (
    SelfCriticalBatches,
    without_regularization,
)

_LOGGER = logging.getLogger(__name__)
_SETTINGS, _IDENTITY = "settings.json", "identity.json.gz"
_HISTORY = "history.csv"
_CALIBRATION_IMAGES = 1000  # at most, with one caption each
# Options that shape nothing of what has been learned.
_MAY_CHANGE = {
    *("concept_weight", "matmul_precision", "jit_compile"),
    *("checkpoint_steps", "checkpoint_epochs", "keep_checkpoints"),
}


def train(
    preset: str = "sample",
    *,
    captions: str | Path,
    images: str | Path,
    out: str | Path,
    val_captions: str | Path | None = None,
    val_images: str | Path | None = None,
    val_share: float = 0.2,
    split: str | None = None,
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
        captions: Captions in one of the layouts of `docs/training.md`.
        images: Folder of the images.
        out: Folder of the run; see `Run`.
        val_captions: Captions of the validation images; None holds out a
            share of the others.
        val_images: Folder of the validation images.
        val_share: Share of the images held out, in (0, 1).
        split: Which split of `captions` to train on, if not "train"; with
            splits, "val" is held out.
        start: Begin with the weights and the vocabulary of the captioner in
            this folder, or of what `bmt pretrain` wrote.
        limit: Use only the first N images of each file.
        cache: Folder of the images' pixels or embeddings; None for one in
            `out`.
        skip_bad: Leave out images and captions that cannot be read.
        strategy: Shares each batch: `"mirrored"`, `"multi-worker"`, `"tpu"` or
            a strategy that is open.
        callbacks: More callbacks for `fit`.
        verbose: 1 for a line per epoch and a bar of the whole run, or a line
            now and then where no terminal is; 2 for no bar; 0 for silence.
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
    if isinstance(strategy, str):
        strategy = distributed.open_strategy(strategy)
    is_chief = distributed.is_chief(strategy)
    with (
        distributed.detect_lost_worker(strategy),
        lock_folder(Path(out)) if is_chief else nullcontext(),  # for all
    ):
        sides = read_sides(
            captions,
            images,
            val_captions=val_captions,
            val_images=val_images,
            val_share=val_share,
            split=split,
            limit=limit,
            seed=settings.optimization.seed,
            skip_bad=skip_bad,
        )
        first = Captioner.from_preset(start) if start else None
        run = Run(
            settings,
            Path(out),
            start=first.model if first else None,
            callbacks=callbacks,
            verbose=verbose,
            strategy=strategy,
        )
        # What can be wrong is read before images are embedded for hours.
        tokenizer = (
            first.tokenizer if first else make_tokenizer(settings, sides[0])
        )
        run.check(sides, tokenizer)
        folder = Path(cache or run.out / "cache")
        tower, data = _open_data(settings, *sides, folder, skip_bad, strategy)
        captioner = run.train(data, tokenizer, tower)
        if is_chief:
            run.evaluate()
        distributed.wait_for_workers(strategy)
    return captioner


@dataclass
class Run:
    """Trains a captioner, going on from the last checkpoint of its folder.

    Where several workers train, all make the same run; the chief alone writes.
    A run with `self_critical_samples` trains without dropout and label
    smoothing, whatever the settings say.

    Args:
        settings: The settings.
        out: Folder of the run: `settings.json`, `checkpoints/`,
            `tensorboard/`, `history.csv`, at the end `captioner/`; with cached
            maskings `text_states/`; `identity.json.gz`, what it began with.
        start: Begin with the weights of this model instead of fresh ones.
        callbacks: As for `bmt_keras.train`, like all that follow.

    Raises:
        InputError: The folder is a run's with other settings, or a setting
            does not go with a strategy or with a fresh model.
    """

    settings: Settings
    out: Path
    _: KW_ONLY
    start: BimodalMaskedLM | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    verbose: int = 1
    strategy: tf.distribute.Strategy | None = None
    _identity: bytes = field(default=b"", init=False)

    def __post_init__(self) -> None:
        """Checks that the run can begin, or go on."""
        distributed.check_replicas(self.settings, self.strategy)
        if self.start is None:
            self.settings.expect(
                "without `start`: it is for a captioner that has learned",
                self_critical_samples=0,
            )
        self.settings = without_regularization(self.settings)
        path = self.out / _SETTINGS
        found = Settings.load(path) if path.exists() else self.settings
        for name, group, _ in Settings.options():
            ours, theirs = self.settings.get(name), found.get(name)
            may_change = group == "decoding" or name in _MAY_CHANGE
            if ours != theirs and not may_change:
                raise InputError(
                    f"{self.out}: the folder holds a run with other settings: "
                    f"`{name}` is {theirs!r} there, expected {ours!r}; "
                    "give another --out, or delete the folder."
                )
        self.is_chief = distributed.is_chief(self.strategy)
        self.verbose = self.verbose if self.is_chief else 0

    def check(
        self,
        sides: Sequence[Sequence[CaptionedImage]],
        tokenizer: CaptionTokenizer,
    ) -> None:
        """Checks what the run is to learn from, ahead of long work.

        Raises:
            InputError: The folder's run began with something else, or nothing
                can be learned from the captions.
        """
        ours = identify(sides, tokenizer, self.start)
        self._identity = check_identity(self.out / _IDENTITY, ours)
        check_captions(sides, tokenizer, self.settings)

    def train(
        self,
        data: TrainingData,
        tokenizer: CaptionTokenizer,
        image_tower: keras.Model,
    ) -> Captioner:
        """Trains, or goes on, to the last epoch, and saves the captioner.

        Args:
            data: Images, captions and features.
            tokenizer: The tokenizer.
            image_tower: The model behind the features. One that is trained
                must have been built in the strategy's scope.

        Returns:
            The captioner, which is also in `captioner/` of the run's folder.

        Raises:
            InputError: The folder's cached maskings are of something else, or
                `start` is of another shape.
        """
        self.data, self.tokenizer = data, tokenizer
        self.image_tower = image_tower
        if not self._identity:
            self.check((data.train, data.val), tokenizer)
        if self.is_chief:
            self.settings.save(self.out / _SETTINGS)
            with write_atomically(self.out / _IDENTITY, "wb") as file:
                file.write(self._identity)
        self._make_batches()
        self._build_or_resume()
        # The same object as in the callbacks: it writes their captions.
        self.captioner = self._assemble(self.model)
        self._fit()
        self._finish_model()
        if self.is_chief:
            images, features = data.validation_features(_CALIBRATION_IMAGES)
            watched = watch("Calibrating confidences", features)
            calibrate(self.captioner, images, watched)
            self.captioner.save_to_preset(self.out / "captioner")
        distributed.wait_for_workers(self.strategy)
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
        steps = self.settings.optimization
        set_matmul_precision(steps.matmul_precision)
        # Variables made outside of it would have no replicas.
        with self.strategy.scope() if self.strategy else nullcontext():
            model = load_last(self.out / "checkpoints") or self._build()
        # A checkpoint holds those of the run before.
        model.concept_weight = self.settings.fusion.concept_weight
        if model.uses_xla != steps.jit_compile:
            # The optimizer keeps its state.
            model.compile(model.optimizer, jit_compile=steps.jit_compile)
        model.trains_as_it_predicts = steps.self_critical_samples > 0
        self.model = model
        step = count_batches(model.optimizer)
        # Workers with folders of their own would wait for each other for ever.
        distributed.check_same_step(self.strategy, step)
        if self.strategy is not None:
            distributed.fit_model_to_replicas(model, self.strategy)

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

    def _find_batches(self) -> Callable[[int], tf.data.Dataset]:
        """Gives what the steps from one on learn from: one of four kinds."""
        settings, batches = self.settings, self.train_batches
        if settings.batches.cached_maskings:
            return MaskedStateCache(
                batches,
                self.model,
                settings,
                self.tokenizer,
                self.out / "text_states",
            ).dataset
        if settings.optimization.self_critical_samples:
            return SelfCriticalBatches(
                batches, self.captioner, settings, self.data.train
            ).dataset
        return partial(distributed.share_dataset, batches, self.strategy)

    def _fit(self) -> None:
        """Fits from the model's step to the last one."""
        make_dataset, callbacks = self._find_batches(), self._make_callbacks()
        epochs, size = self.settings.optimization.epochs, self.steps_per_epoch
        # Cached maskings of a round are used up before the next are drawn.
        round_epochs = self.settings.batches.redraw_epochs or epochs
        while (step := count_batches(self.model.optimizer)) < epochs * size:
            epoch, done = divmod(step, size)
            self._begin_fit(step, epoch)
            round_end = (epoch // round_epochs + 1) * round_epochs
            dataset = make_dataset(step)
            bar = show_progress("Training") if self.verbose == 1 else None
            with bar or nullcontext(lambda *_: None) as show:
                more: list[keras.callbacks.Callback] = []
                if self.is_chief:
                    logs = self.out / "tensorboard" / "steps"
                    more = [Steps(show, epochs * size, logs)]
                self.model.fit(
                    dataset,
                    steps_per_epoch=size - done,
                    initial_epoch=epoch,
                    # `fit` only begins at an epoch's first step: one that
                    # stopped in the middle is ended first.
                    epochs=epoch + 1 if done else min(round_end, epochs),
                    validation_data=distributed.share_dataset(
                        self.val_batches, self.strategy
                    ),
                    validation_steps=self.val_batches.steps_per_epoch,
                    shuffle=False,
                    callbacks=callbacks + more,
                    # A line per epoch: Keras' bar knows of no other epochs.
                    verbose=2 if self.verbose else 0,
                )

    def _begin_fit(self, step: int, epoch: int) -> None:
        if step:
            _LOGGER.info("Going on at step %d (epoch %d).", step, epoch + 1)
            if self.is_chief:
                drop_epochs(self.out / _HISTORY, epoch)
        elif self.verbose:
            # A compiled model's own counts its optimizer's variables, too.
            model = self.model
            keras.Model(model.inputs, model.outputs, name=model.name).summary()

    def _make_callbacks(self) -> list[keras.callbacks.Callback]:
        steps, logs = self.settings.optimization, self.out / "tensorboard"
        callbacks: list[keras.callbacks.Callback] = []
        if steps.ema_momentum:
            # Swaps the average in while the model is validated.
            callbacks.append(keras.callbacks.SwapEMAWeights())
        if self.is_chief:
            callbacks += [
                Checkpoints(self.out / "checkpoints", steps),
                keras.callbacks.LambdaCallback(on_epoch_end=self._add_rate),
                # After the rate, which they write down, too.
                keras.callbacks.CSVLogger(self.out / _HISTORY, append=True),
                keras.callbacks.TensorBoard(
                    logs, write_graph=False, update_freq="epoch"
                ),
                log_captions(logs / "captions", self.captioner, self.data),
            ]
        return [*callbacks, *self.callbacks]

    def _add_rate(self, epoch: int, logs: dict[str, float]) -> None:
        rate = self.model.optimizer.learning_rate
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(rate))

    def _finish_model(self) -> None:
        """From the model that learned to an ordinary one in float32."""
        model, steps = self.model, self.settings.optimization
        # The average is that of LoRA's factors, so it comes before the merge.
        if steps.ema_momentum:
            model.optimizer.take_average(model.trainable_variables)
        if self.settings.text.lora_rank:
            model = merge_lora(model)
        if steps.dtype_policy != "float32":
            model = copy_in_float32(model)
        model.trains_as_it_predicts = False
        if model is not self.model:
            self.captioner = self._assemble(model)


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
    prepare = partial(
        prepare_data, settings, train, val, cache=cache, skip_bad=skip_bad
    )
    with (
        distributed.chief_first(strategy),
        show_progress("Reading images") as on_progress,
    ):
        is_kept = all((cache / side).is_dir() for side in ("train", "val"))
        if not settings.image.trainable and not is_kept:
            call_in_own_process(prepare, on_progress=on_progress)
        data = prepare(image_tower=tower, on_progress=on_progress)
    return tower, data


def _set_bias(model: BimodalMaskedLM, counts: np.ndarray) -> None:
    """Sets the head's bias to the log-frequencies of the tokens."""
    # A fresh model would spend its first hundreds of steps on learning these.
    log_shares = np.log((counts + 0.5) / (counts + 0.5).sum())
    model.head.bias.assign(log_shares - log_shares.mean())


def copy_weights(source: BimodalMaskedLM, target: BimodalMaskedLM) -> None:
    """Sets a model's weights to those of another one of the same shape.

    A concept head that the other one lacks stays fresh.

    Raises:
        InputError: A weight is missing or of another shape.
    """
    rule = "give the preset and settings that it was trained with."
    theirs, ours = source.weights, target.weights
    if source.concept_head is None and target.concept_head is not None:
        fresh = {id(weight) for weight in target.concept_head.weights}
        ours = [weight for weight in ours if id(weight) not in fresh]
    if len(theirs) != len(ours):
        raise InputError(
            f"The captioner to start from has {len(theirs)} weights, the "
            f"settings ask for {len(ours)}; {rule}"
        )
    # By their order: names count the models that a process has built.
    for old, new in zip(theirs, ours, strict=True):
        if tuple(old.shape) != tuple(new.shape):
            raise InputError(
                "The captioner to start from is of another shape: its "
                f"{old.path} is {tuple(old.shape)}, the settings ask for "
                f"{tuple(new.shape)}; {rule}"
            )
        new.assign(old)
