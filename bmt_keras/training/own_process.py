"""Calling a function in a process of its own, whose end frees its memory.

What is imported here is light: the process starts with this file.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

from bmt_keras.errors import InputError


def call_in_own_process(
    function: Callable[..., Any], *, on_progress: Callable[..., None]
) -> None:
    """Calls a function in a new process, which never outlives this one.

    Args:
        function: Embeds images. It takes `on_progress`, and is pickled.
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
        with suppress(EOFError):
            while True:
                message = ours.recv()
                if isinstance(message, Exception):
                    raise message
                on_progress(*message)
        process.join()
    finally:
        process.terminate()
        process.join()
        ours.close()
    if code := process.exitcode:
        how = f"with code {code}" if code > 0 else f"by signal {-code}"
        if -code == signal.SIGKILL:
            how += " (probably out of memory)"
        raise InputError(
            f"The process that embeds the images ended {how}; the same "
            "command starts it again."
        )


def prepare_data(*arguments: Any, **options: Any) -> Any:
    """The same of `training.data`, which is imported when it is called."""
    # A new process minds its parent before it loads TensorFlow.
    from bmt_keras.training import data

    return data.prepare_data(*arguments, **options)


def end_with(parent: int) -> None:
    """Has this process end soon after its parent, even after a killed one."""

    def wait() -> None:
        # What outlives its parent is another process' child.
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    # A killed process cannot end what it started, and a terminal's interrupt
    # reaches the processes in the foreground alone.
    Thread(target=wait, daemon=True).start()


def _run(
    connection: Connection, parent: int, function: Callable[..., Any]
) -> None:
    end_with(parent)
    # The parent is interrupted, too, and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        function(on_progress=lambda *message: connection.send(message))
    except (InputError, OSError) as error:
        connection.send(error)
