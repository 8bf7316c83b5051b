"""How far a stream has come: a bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def show_progress(
    wanted: bool, total: int | None
) -> Iterator[Callable[[], None]]:
    """Shows on the error stream how many photos are done.

    Args:
        wanted: bool. Whether anything is shown.
        total: int. Photos in all, or None where that is not known.

    Yields:
        A function to call after each photo.
    """
    if not wanted:
        yield lambda: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(console.print, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    # Results may go to a pipe, which rich would turn to the terminal.
    with Progress(*columns, console=console, redirect_stdout=False) as bar:
        task = bar.add_task("Captioning", total=total)
        yield lambda: bar.advance(task)


class _RateColumn(ProgressColumn):
    """Photos a second."""

    def render(self, task: Task) -> Text:
        """Returns the rate, once there is one."""
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


class _PlainLines:
    """A line now and then, and a last one."""

    def __init__(self, write: Callable[[str], None], total: int | None) -> None:
        self._write = write
        self._total = total
        self._done = 0
        self._start = self._written = time.monotonic()

    def __call__(self) -> None:
        self._done += 1
        now = time.monotonic()
        last = self._done == self._total
        if not last and now - self._written < _SECONDS_BETWEEN_LINES:
            return
        self._written = now
        rate = self._done / max(now - self._start, 1e-9)
        line = f"Captioning: {self._done}"
        if self._total is not None:
            left = (self._total - self._done) / rate
            line += f" of {self._total}, {left:.0f} s left"
        self._write(f"{line}, {rate:.1f}/s")
