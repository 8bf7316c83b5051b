"""A process that does not outlive the one which started it."""

import os
import time
from threading import Thread

_SECONDS = 0.5  # between two looks


def end_with_parent(parent: int) -> None:
    """Has this process end soon after the one that started it.

    A killed process cannot end what it started, and a terminal's interrupt
    reaches the processes in the foreground alone.

    Args:
        parent: The number of the process that started this one.
    """
    Thread(target=_wait_for_end, args=(parent,), daemon=True).start()


def _wait_for_end(parent: int) -> None:
    # What outlives its parent is another process' child.
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)
