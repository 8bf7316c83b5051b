"""What is written down while a captioner trains, and read to go on."""

import logging
import math
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bmt_keras.atomic import write_atomically
from bmt_keras.captioner import Captioner
from bmt_keras.data.images import decode_images
from bmt_keras.data.store import check_space
from bmt_keras.errors import InputError
from bmt_keras.progress import ShowDone
from bmt_keras.settings import OptimizationSettings
from bmt_keras.training.data import TrainingData
from bmt_keras.training.optimizer import count_batches

_LOGGER = logging.getLogger(__name__)
_STEPS = "step-*.keras"
_SUMMARY_STEPS = 50


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
        self._saved_step = 0

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
            with write_atomically(file) as text:
                text.write(repr(float(logs["val_loss"])))

    def _save_step(self) -> None:
        step = count_batches(self.model.optimizer)
        # The end of an epoch may be due as a step, too.
        if step != self._saved_step:
            name, self._saved_step = f"step-{step:08d}.keras", step
            self._save(name)
            # Those ahead are damaged, and no reason to drop a whole one.
            kept = [x for x in self._folder.glob(_STEPS) if x.name <= name]
            for old in sorted(kept)[: -self._settings.keep_checkpoints]:
                old.unlink()

    def _save(self, name: str) -> None:
        # Renamed at the end: a killed run leaves whole ones only.
        partial = self._folder / f"partial-{name}"
        weights = [*self.model.variables, *self.model.optimizer.variables]
        check_space(partial, sum(4 * math.prod(x.shape) for x in weights))
        self.model.save(partial)
        partial.replace(self._folder / name)


class Steps(keras.callbacks.Callback):
    """Shows each step of a run of `total`, and every 50th in TensorBoard."""

    def __init__(self, show: ShowDone, total: int, logs: Path) -> None:
        super().__init__()
        self._show, self._total, self._note = show, total, ""
        self._writer = tf.summary.create_file_writer(str(logs))

    def on_train_begin(self, logs: object = None) -> None:
        """Shows where the run begins or goes on."""
        self._show_step()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Shows the loss, which is the mean of the epoch so far."""
        self._note = f"loss {float(logs['loss']):.4g}"
        step = self._show_step()
        if step % _SUMMARY_STEPS == 0:
            with self._writer.as_default(step):
                for name, value in logs.items():
                    tf.summary.scalar(name, value)
            self._writer.flush()  # a run that stops has lost nothing

    def on_test_batch_end(self, batch: int, logs: object = None) -> None:
        """Shows that the run goes on."""
        self._show_step(f", validation batch {batch + 1}")

    def _show_step(self, note: str = "") -> int:
        step = count_batches(self.model.optimizer)
        self._show("", step, self._total, self._note + note)
        return step


def load_last(folder: Path) -> keras.Model | None:
    """Loads the compiled model of the newest checkpoint that is whole.

    Raises:
        InputError: There are checkpoints, none of which can be loaded.
    """
    fault: Exception | None = None
    # A machine that loses power may leave a damaged file behind.
    for path in reversed(sorted(folder.glob(_STEPS))):
        try:
            return keras.saving.load_model(path)
        # What Keras raises depends on where in the file the fault is.
        except Exception as error:
            _LOGGER.warning(
                "%s cannot be loaded and is skipped: %s", path, error
            )
            fault = error
    if fault:
        raise InputError(
            f"{folder}: expected a checkpoint that can be loaded, found none "
            f"({fault}); take the version of bmt_keras that wrote them, or "
            "delete the folder to begin anew."
        ) from fault
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
    """Writes six validation images and, each epoch, captions to TensorBoard."""
    images, features = data.validation_features(6)
    paths = [image.path for image in images]
    writer = tf.summary.create_file_writer(str(folder))
    for pixels, errors in decode_images(paths, captioner.graph.pixel_reader):
        good = pixels[[not error for error in errors]]
        if len(good):
            with writer.as_default(0):
                tf.summary.image("photos", good, max_outputs=len(good))

    def write(epoch: int, logs: object) -> None:
        rows = ["| image | caption | by people |", "|---|---|---|"]
        captions = captioner.caption(features)
        for image, caption in zip(images, captions, strict=True):
            rows.append(
                f"| {image.image_id} | {caption.text} | {image.captions[0]} |"
            )
        with writer.as_default(epoch):
            tf.summary.text("captions", "\n".join(rows))
        writer.flush()  # a run that stops has lost nothing

    return keras.callbacks.LambdaCallback(on_epoch_end=write)
