"""Progress of long work: bars in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

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


# Takes the name of a part of the work, its items done and in all, and a note.
ShowDone = Callable[..., None]


@contextmanager
def show_progress(title: str) -> Iterator[ShowDone]:
    """Shows on the error stream how far some work has come.

    Args:
        title: What is done, such as "Reading images".

    Yields:
        A function `(part, done, total, note="")` to call as often as items
        are done. The parts of the work, such as "train" and "val", have a bar
        each; `part` is "" where there is only one. The first call may come
        with items of an earlier stop; `note` is any text to show.

    Example:
        ```python
        with show_progress("Reading images") as show:
            for done, image in enumerate(images, start=1):
                read(image)
                show("", done, len(images))
        ```
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(console, title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    # Results may go to a pipe, which rich would turn to the terminal.
    is_seen = sys.stdout.isatty()
    with Progress(*columns, console=console, redirect_stdout=is_seen) as bars:
        tasks = {}

        def show(part: str, done: int, total: int, note: str = "") -> None:
            name = _describe(title, part)
            if part not in tasks:
                tasks[part] = bars.add_task(name, total=total, completed=done)
            text = f"{name} {note}".strip()
            bars.update(tasks[part], completed=done, description=text)

        yield show


def watch(title: str, items: Any) -> Any:
    """Gives a sequence or array's items, and shows how many were taken."""
    with show_progress(title) as show:
        for done, item in enumerate(items, start=1):
            yield item
            show("", done, len(items))


class _RateColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        """Returns the rate, once there is one."""
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


class _PlainLines:
    """A line now and then, and one at the end of each part."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        # When each part was first heard of, and how much was done.
        self._starts: dict[str, tuple[float, int]] = {}
        self._ended: set[str] = set()
        self._called = self._printed = time.monotonic()

    def __call__(
        self, part: str, done: int, total: int, note: str = ""
    ) -> None:
        now = time.monotonic()
        # A part began before its first call, which comes when items are done.
        start, first = self._starts.get(part, (self._called, 0))
        self._starts.setdefault(part, (now, done))
        self._called = now
        is_end = done == total and part not in self._ended
        if not is_end and now - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        if is_end:
            self._ended.add(part)
        rate = (done - first) / max(now - start, 1e-9)
        # Hours, minutes and seconds, once there is a rate.
        left = timedelta(seconds=round((total - done) / rate)) if rate else "?"
        line = f"{_describe(self._title, part)}: {done} of {total}, {left} left"
        line += f", {rate:.1f}/s{note and ', '}{note}"
        self._console.print(line, highlight=False, soft_wrap=True)


def _describe(title: str, part: str) -> str:
    return f"{title} ({part})" if part else title
