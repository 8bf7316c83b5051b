"""Embedding images in a process of its own.

Its end gives back the memory of the image tower. What is imported here is
light: the process starts with this file.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.errors import InputError
from bmt_keras.settings import Settings

OnProgress = Callable[[str, int, int], None]
_SECONDS = 0.5  # between two looks for the parent


def prepare_in_own_process(
    settings: Settings,
    train: Sequence[CaptionedImage],
    val: Sequence[CaptionedImage],
    *,
    cache: Path,
    skip_bad: bool,
    on_progress: OnProgress,
) -> None:
    """Embeds images on both sides, unless the cache has them.

    Arguments and errors are those of `prepare_data`.

    Raises:
        InputError: The process was killed.
    """
    if not all((cache / side).is_dir() for side in ("train", "val")):
        call_in_own_process(
            partial(
                _prepare, settings, train, val, cache=cache, skip_bad=skip_bad
            ),
            on_progress=on_progress,
        )


def call_in_own_process(
    function: Callable[..., None], *, on_progress: OnProgress
) -> None:
    """Calls a function in a new process, which never outlives this one.

    Args:
        function: Takes `on_progress`, and is pickled.
        on_progress: Called here with what the function reports there.

    Raises:
        InputError: The function raised one, or the process did not end well.
        OSError: The function raised one.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_run, args=(theirs, os.getpid(), function), daemon=True
    )
    process.start()
    theirs.close()  # else the end of the process would not end `recv`
    try:
        while (message := _receive(ours)) is not None:
            if isinstance(message, Exception):
                raise message
            on_progress(*message)
        process.join()
    finally:
        process.terminate()
        process.join()
        ours.close()
    if process.exitcode:
        how = f"with code {process.exitcode}"
        if process.exitcode < 0:
            how = f"by signal {-process.exitcode}"
        raise InputError(
            f"The process that embeds the images ended {how}; the same "
            "command starts it again."
        )


def _end_with_parent(parent: int) -> None:
    """Has this process end soon after the one that started it."""

    def wait() -> None:
        # What outlives its parent is another process' child.
        while os.getppid() == parent:
            time.sleep(_SECONDS)
        os._exit(1)

    # A killed process cannot end what it started, and a terminal's interrupt
    # reaches the processes in the foreground alone.
    Thread(target=wait, daemon=True).start()


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except EOFError:
        return None


def _run(
    connection: Connection, parent: int, function: Callable[..., None]
) -> None:
    _end_with_parent(parent)
    # The parent is interrupted, too, and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        function(on_progress=lambda *message: connection.send(message))
    except (InputError, OSError) as error:
        connection.send(error)


def _prepare(*arguments: Any, **options: Any) -> None:
    # Here, for the parent needs no TensorFlow to start this process.
    from bmt_keras.training.data import prepare_data

    prepare_data(*arguments, **options)
