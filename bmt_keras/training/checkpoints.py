"""Checkpoints: the last few, the best, and another run's as a start."""

import logging
import math
import re
from pathlib import Path

import keras

from bmt_keras.errors import InputError
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.training.optimizer import count_batches

_LOGGER = logging.getLogger(__name__)
_NAME = "step-{:08d}.keras"
_PATTERN = re.compile(r"step-(\d{8})\.keras")
BEST = "best.keras"


class Checkpoints(keras.callbacks.Callback):
    """Saves model and optimizer every few steps and epochs, and the best.

    Args:
        folder: Folder of the checkpoints.
        every_steps: Steps between checkpoints within an epoch; 0 for none.
        every_epochs: Epochs between checkpoints at an epoch's end; the last
            epoch of a run has one anyway.
        keep: How many of the last are kept.
    """

    def __init__(
        self, folder: Path, *, every_steps: int, every_epochs: int, keep: int
    ) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._every_steps = every_steps
        self._every_epochs = every_epochs
        self._keep = keep
        # A file, for the run that goes on compares with it, too.
        self._best_file = folder / "best.txt"

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Saves where the step is due."""
        if self._every_steps and self._step() % self._every_steps == 0:
            self._save_step()

    def on_epoch_end(
        self, epoch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Saves where the epoch is due, and keeps the best."""
        is_last = epoch + 1 == self.params["epochs"]
        if is_last or (epoch + 1) % self._every_epochs == 0:
            self._save_step()
        value = (logs or {}).get("val_loss")
        if value is not None and value < self._best():
            self._save(self._folder / BEST)
            self._best_file.write_text(repr(float(value)))

    def _step(self) -> int:
        return count_batches(self.model.optimizer)

    def _best(self) -> float:
        if not self._best_file.is_file():
            return math.inf
        return float(self._best_file.read_text())

    def _save_step(self) -> None:
        path = self._folder / _NAME.format(self._step())
        if not path.exists():
            self._save(path)
            for old in _steps(self._folder)[: -self._keep]:
                old.unlink()

    def _save(self, path: Path) -> None:
        # Renamed at the end: a killed run leaves whole ones only.
        partial = path.with_name(f"partial-{path.name}")
        self.model.save(partial)
        partial.replace(path)


def load_last(folder: Path) -> keras.Model | None:
    """Loads the compiled model of the newest checkpoint that is whole."""
    # A machine that loses power may leave a damaged file behind.
    for path in reversed(_steps(folder)):
        try:
            return keras.saving.load_model(path)
        except (ValueError, OSError, KeyError) as error:
            _LOGGER.warning(
                "%s cannot be loaded and is skipped: %s", path, error
            )
    return None


def _steps(folder: Path) -> list[Path]:
    found = folder.glob("step-*.keras")
    return sorted(path for path in found if _PATTERN.fullmatch(path.name))


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
