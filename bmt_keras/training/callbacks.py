"""What is written down while a captioner trains."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from bmt_keras.atomic import write_atomically


def drop_epochs(history: Path, first: int) -> None:
    """Takes epochs that are to be run again out of a CSV of `CSVLogger`.

    Args:
        history: The file; it may be missing.
        first: The first epoch, from 0, to take out.
    """
    if not history.is_file():
        return
    with history.open(newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    kept = [row for row in rows if int(row[0]) < first]
    if len(kept) < len(rows):
        with write_atomically(history) as file:
            csv.writer(file, lineterminator="\n").writerows([header, *kept])


class ModelSummary(keras.callbacks.Callback):
    """Prints the model's summary when training begins, once."""

    def __init__(self) -> None:
        """Has printed nothing yet."""
        super().__init__()
        self._is_printed = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Prints it."""
        if self._is_printed:
            return
        model = self.model
        # The summary of a compiled model counts its optimizer's variables in.
        keras.Model(model.inputs, model.outputs, name=model.name).summary()
        self._is_printed = True


class LearningRateLog(keras.callbacks.Callback):
    """Adds the learning rate to the epoch's logs, for those that follow."""

    def on_epoch_end(
        self, epoch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Adds `learning_rate`."""
        if logs is not None:
            rate = self.model.optimizer.learning_rate
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(rate))


class CaptionLog(keras.callbacks.Callback):
    """Writes the captions of a few fixed photos to TensorBoard each epoch.

    Args:
        folder: TensorBoard's log folder.
        features: (photos, ...) what the model takes of the photos.
        references: A caption by people for each of the photos.
        caption: Writes captions of features.
    """

    def __init__(
        self,
        folder: Path,
        *,
        features: np.ndarray,
        references: Mapping[int, str],
        caption: Callable[[np.ndarray], list[str]],
    ) -> None:
        """Keeps the photos."""
        super().__init__()
        self._folder = folder
        self._features = features
        self._references = references
        self._caption = caption

    def on_epoch_end(
        self, epoch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Writes one table."""
        rows = ["| photo | caption | by people |", "|---|---|---|"]
        written = self._caption(self._features)
        for text, (image_id, reference) in zip(
            written, self._references.items(), strict=True
        ):
            rows.append(f"| {image_id} | {text} | {reference} |")
        # Opened for each epoch: a run that stops has lost nothing.
        writer = tf.summary.create_file_writer(str(self._folder))
        with writer.as_default():
            tf.summary.text("captions", "\n".join(rows), step=epoch)
        writer.close()
