"""Steps of `fit` and batches of its data sets, as work to be timed."""

import itertools
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from bmt_keras.data.batch_plan import PlannedBatch
from bmt_keras.data.batches import CaptionBatches


def repeat_batches(
    batches: CaptionBatches, planned: Sequence[PlannedBatch]
) -> tf.data.Dataset:
    """Gives the same batches without end, read anew each time.

    Args:
        batches: Reads them.
        planned: Which.
    """
    return batches.dataset_of(lambda: itertools.cycle(planned))


def train_steps(
    model: keras.Model, dataset: tf.data.Dataset, steps: int
) -> Callable[[], None]:
    """Gives what takes so many steps of `fit`, without its callbacks.

    Args:
        model: Compiled.
        dataset: As `fit` takes it, without end.
        steps: How many.
    """
    model.make_train_function()
    iterator = iter(dataset)

    def run() -> None:
        for _ in range(steps):
            logs = model.train_function(iterator)
        float(logs["loss"])

    return run


def read_batches(dataset: tf.data.Dataset, steps: int) -> Callable[[], None]:
    """Gives what reads so many batches.

    Args:
        dataset: Without end.
        steps: How many.
    """
    iterator = iter(dataset)

    def run() -> None:
        for _ in range(steps):
            next(iterator)

    return run


def size_of(planned: PlannedBatch) -> tuple[int, int]:
    """Captions of a batch, and tokens to which they are padded."""
    return len(planned.captions), planned.length


def count_captions(planned: Sequence[PlannedBatch]) -> int:
    """Captions of batches, in all."""
    return sum(len(each.captions) for each in planned)
