"""Checkpoints: the last few, the best, and going on from them."""

import logging
import math
import re
from pathlib import Path

import keras

from bmt_keras.training.optimizer import count_batches

_LOGGER = logging.getLogger(__name__)
_NAME = "step-{:08d}.keras"
_PATTERN = re.compile(r"step-(\d{8})\.keras")
BEST = "best.keras"


class Checkpoints(keras.callbacks.Callback):
    """Saves model and optimizer every so many steps and epochs.

    A checkpoint is written beside its place and renamed, so that a killed run
    leaves whole ones only.

    Args:
        folder: Where.
        every_steps: Steps between checkpoints within an epoch; 0 for none.
        every_epochs: Epochs between checkpoints at an epoch's end; the last
            epoch of a run has one anyway.
        keep: How many of the last are kept.
        monitor: The logged figure, lower is better, that makes the best one;
            None or a figure that is not logged keeps no best.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_steps: int = 0,
        every_epochs: int = 1,
        keep: int = 3,
        monitor: str | None = "val_loss",
    ) -> None:
        """Makes the folder."""
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._every_steps = every_steps
        self._every_epochs = every_epochs
        self._keep = keep
        self._monitor = monitor
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
        value = (logs or {}).get(self._monitor or "")
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
        partial = path.with_name(f"partial-{path.name}")
        self.model.save(partial)
        partial.replace(path)


def load_last(folder: Path) -> keras.Model | None:
    """Loads the newest checkpoint that is whole.

    Args:
        folder: Where checkpoints may be.

    Returns:
        The compiled model, or None where there is no checkpoint.
    """
    for path in reversed(_steps(folder)):
        try:
            return keras.saving.load_model(path)
        except (ValueError, OSError, KeyError) as err:
            _LOGGER.warning("%s cannot be loaded and is passed: %s", path, err)
    return None


def _steps(folder: Path) -> list[Path]:
    found = folder.glob("step-*.keras")
    return sorted(path for path in found if _PATTERN.fullmatch(path.name))
