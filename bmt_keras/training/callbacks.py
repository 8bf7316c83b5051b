"""What is written down while a captioner trains, and read to go on."""

import logging
from pathlib import Path

import keras
import tensorflow as tf

from bmt_keras.atomic import write_atomically
from bmt_keras.captioner import Captioner
from bmt_keras.settings import OptimizationSettings
from bmt_keras.training.data import TrainingData
from bmt_keras.training.optimizer import count_batches

_LOGGER = logging.getLogger(__name__)
_STEPS = "step-*.keras"


class Checkpoints(keras.callbacks.Callback):
    """Saves model and optimizer every few steps and epochs, and the best.

    The settings say how often, and how many are kept; the last epoch of a run
    has a checkpoint anyway.
    """

    def __init__(self, folder: Path, settings: OptimizationSettings) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._settings = settings

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Saves where the step is due."""
        every = self._settings.checkpoint_steps
        if every and count_batches(self.model.optimizer) % every == 0:
            self._save_step()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Saves where the epoch is due, and keeps the best."""
        is_last = epoch + 1 == self.params["epochs"]
        if is_last or (epoch + 1) % self._settings.checkpoint_epochs == 0:
            self._save_step()
        # A file, for the run that goes on compares with it, too.
        file = self._folder / "best.txt"
        best = float(file.read_text()) if file.is_file() else float("inf")
        if logs["val_loss"] < best:
            self._save("best.keras")
            file.write_text(repr(float(logs["val_loss"])))

    def _save_step(self) -> None:
        name = f"step-{count_batches(self.model.optimizer):08d}.keras"
        if not (self._folder / name).exists():
            self._save(name)
            keep = self._settings.keep_checkpoints
            for old in sorted(self._folder.glob(_STEPS))[:-keep]:
                old.unlink()

    def _save(self, name: str) -> None:
        # Renamed at the end: a killed run leaves whole ones only.
        partial = self._folder / f"partial-{name}"
        self.model.save(partial)
        partial.replace(self._folder / name)


def load_last(folder: Path) -> keras.Model | None:
    """Loads the compiled model of the newest checkpoint that is whole."""
    # A machine that loses power may leave a damaged file behind.
    for path in reversed(sorted(folder.glob(_STEPS))):
        try:
            return keras.saving.load_model(path)
        except (ValueError, OSError, KeyError) as error:
            _LOGGER.warning(
                "%s cannot be loaded and is skipped: %s", path, error
            )
    return None


def drop_epochs(history: Path, first: int) -> None:
    """Removes epochs, from `first` on, that are to be run again."""
    if not history.is_file():
        return
    header, *rows = history.read_text().splitlines(keepends=True) or [""]
    kept = [row for row in rows if int(row.split(",")[0]) < first]
    with write_atomically(history) as file:
        file.writelines([header, *kept])


def log_captions(
    folder: Path, captioner: Captioner, data: TrainingData
) -> keras.callbacks.Callback:
    """Writes captions of six validation images to TensorBoard each epoch."""
    images, features = data.validation_features(6)

    def write(epoch: int, logs: object) -> None:
        rows = ["| image | caption | by people |", "|---|---|---|"]
        captions = captioner.caption(features)
        for image, caption in zip(images, captions, strict=True):
            rows.append(
                f"| {image.image_id} | {caption.text} | {image.captions[0]} |"
            )
        # Opened for each epoch: a run that stops has lost nothing.
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default():
            tf.summary.text("captions", "\n".join(rows), step=epoch)
        writer.close()

    return keras.callbacks.LambdaCallback(on_epoch_end=write)
