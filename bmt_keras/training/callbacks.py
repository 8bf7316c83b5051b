"""What is written down while a captioner trains."""

import csv
from pathlib import Path

import keras
import tensorflow as tf

from bmt_keras.atomic import write_atomically
from bmt_keras.captioner import Captioner
from bmt_keras.training.checkpoints import Checkpoints
from bmt_keras.training.data import TrainingData

_SHOWN = 6  # images whose captions TensorBoard shows


def run_callbacks(
    out: Path, history: Path, captioner: Captioner, data: TrainingData
) -> list[keras.callbacks.Callback]:
    """Makes what writes checkpoints, the history and TensorBoard's logs."""
    steps = captioner.settings.optimization
    return [
        Checkpoints(
            out / "checkpoints",
            every_steps=steps.checkpoint_steps,
            every_epochs=steps.checkpoint_epochs,
            keep=steps.keep_checkpoints,
        ),
        LearningRateLog(),
        # After the rate, which they write down, too.
        keras.callbacks.CSVLogger(history, append=True),
        keras.callbacks.TensorBoard(
            out / "tensorboard", write_graph=False, update_freq="epoch"
        ),
        CaptionLog(out / "tensorboard" / "captions", captioner, data),
    ]


def drop_epochs(history: Path, first: int) -> None:
    """Removes epochs, from `first` on, that are to be run again."""
    if not history.is_file():
        return
    with history.open(newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    kept = [row for row in rows if int(row[0]) < first]
    if len(kept) < len(rows):
        with write_atomically(history) as file:
            csv.writer(file, lineterminator="\n").writerows([header, *kept])


class LearningRateLog(keras.callbacks.Callback):
    """Adds `learning_rate` to the epoch's logs, for those that follow."""

    def on_epoch_end(
        self, epoch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Adds it."""
        if logs is not None:
            rate = self.model.optimizer.learning_rate
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(rate))


class CaptionLog(keras.callbacks.Callback):
    """Writes captions of a few validation images to TensorBoard each epoch."""

    def __init__(
        self, folder: Path, captioner: Captioner, data: TrainingData
    ) -> None:
        super().__init__()
        self._folder = folder
        self._captioner = captioner
        self._images, self._features = data.validation_features(_SHOWN)

    def on_epoch_end(
        self, epoch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Writes one table."""
        rows = ["| image | caption | by people |", "|---|---|---|"]
        captions = self._captioner.caption(self._features)
        for image, caption in zip(self._images, captions, strict=True):
            rows.append(
                f"| {image.image_id} | {caption.text} | {image.captions[0]} |"
            )
        # Opened for each epoch: a run that stops has lost nothing.
        writer = tf.summary.create_file_writer(str(self._folder))
        with writer.as_default():
            tf.summary.text("captions", "\n".join(rows), step=epoch)
        writer.close()
