"""Progress of long work: bars in a terminal, plain lines elsewhere."""

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


# Takes the name of a part of the work, and its items done and in all.
ShowDone = Callable[[str, int, int | None], None]


@contextmanager
def show_progress(title: str) -> Iterator[ShowDone]:
    """Shows on the error stream how far some work has come.

    Args:
        title: What is done, such as "Reading images".

    Yields:
        A function `(part, done, total)` to call as often as items are done.
        The parts of the work, such as "train" and "val", have a bar each;
        `part` is "" where there is only one. `total` is None where nobody
        knows it.

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
    with Progress(*columns, console=console, redirect_stdout=False) as bars:
        tasks = {}

        def show(part: str, done: int, total: int | None) -> None:
            if part not in tasks:
                tasks[part] = bars.add_task(_describe(title, part), total=total)
            bars.update(tasks[part], completed=done)

        yield show


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
        self._starts: dict[str, float] = {}
        self._called = self._printed = time.monotonic()

    def __call__(self, part: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        # The first call comes when items are done: the part began before it.
        start = self._starts.setdefault(part, self._called)
        self._called = now
        if done != total and now - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        rate = done / max(now - start, 1e-9)
        line = f"{_describe(self._title, part)}: {done}"
        if total is not None:
            left = (total - done) / max(rate, 1e-9)
            line += f" of {total}, {left:.0f} s left"
        self._console.print(
            f"{line}, {rate:.1f}/s", highlight=False, soft_wrap=True
        )


def _describe(title: str, part: str) -> str:
    return f"{title} ({part})" if part else title
