"""Work in a process of its own, whose memory is told."""

import os
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from bmt_keras.parent import end_with_parent

Result = TypeVar("Result")
_STATUS = Path("/proc/self/status")


def run_in_own_process(
    work: Callable[..., Result], *arguments: Any
) -> tuple[Result, int]:
    """Calls a function in a fresh process and waits for it.

    The process ends with this one, even where a signal ends this one.

    Args:
        work: A function that a module defines.
        *arguments: Its arguments.

    Returns:
        What it returned, and the most memory in bytes that the process had
        resident at any time, libraries and all.

    Raises:
        BrokenProcessPool: The process was killed.
    """
    with ProcessPoolExecutor(
        1,
        mp_context=get_context("spawn"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    ) as pool:
        return pool.submit(_call, work, arguments).result()


def peak_memory() -> int:
    """The most memory in bytes that this process had resident."""
    # What `getrusage` tells begins with the parent's memory on Linux.
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _call(
    work: Callable[..., Result], arguments: tuple[Any, ...]
) -> tuple[Result, int]:
    return work(*arguments), peak_memory()
