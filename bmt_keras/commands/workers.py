"""A command that is one of several workers."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bmt_keras.commands.quiet import silence_start

if TYPE_CHECKING:
    import tensorflow as tf

LOST_WORKER = 3


@contextmanager
def train_together(
    name: str | None, *, tpu_address: str | None
) -> Iterator["tf.distribute.Strategy | None"]:
    """Opens a strategy for a block, which ends where another worker is lost.

    Args:
        name: As for `training.open_strategy`.
        tpu_address: As well.

    Yields:
        The strategy; None for none.

    Raises:
        InputError: As `training.open_strategy`.
    """
    import tensorflow as tf

    from bmt_keras import training

    training.check_strategy(name, tpu_address=tpu_address)
    # It tells of every sum that it plans.
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    if name == "multi-worker":
        print("Waiting for all workers of TF_CONFIG.", file=sys.stderr)
    with silence_start():
        strategy = training.open_strategy(name, tpu_address=tpu_address)
    if not training.is_chief(strategy):
        logging.getLogger("bmt_keras").setLevel(logging.WARNING)
    try:
        yield strategy
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    ) as err:
        if name != "multi-worker":
            raise
        print(
            "bmt: Another worker is lost; start all of them again, and they "
            f"go on from the last checkpoint. ({_first_cause(err)})",
            file=sys.stderr,
            flush=True,
        )
        # An ordinary end would wait a minute for the one that is lost.
        os._exit(LOST_WORKER)


def _first_cause(err: Exception) -> str:
    lines = str(err).splitlines()
    told = [line for line in lines if "aborted by" in line]
    return " ".join((told or lines)[0].split())
