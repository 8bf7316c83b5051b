"""Progress of long work: a bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def show_progress(verb: str) -> Iterator[Callable[[str, int, int], None]]:
    """Shows how far a work on several lots has come.

    Args:
        verb: What is done, such as "Reading photos".

    Yields:
        A function of the lot's name, the items done and the items in all.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(verb)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {}

        def show(lot: str, done: int, total: int) -> None:
            if lot not in tasks:
                tasks[lot] = progress.add_task(f"{verb} ({lot})", total=total)
            progress.update(tasks[lot], completed=done)

        yield show


class _PlainLines:
    """A line now and then, with the rate and the time left."""

    def __init__(self, verb: str) -> None:
        self._console = Console(stderr=True)
        self._verb = verb
        self._start: dict[str, float] = {}
        self._called = self._printed = time.monotonic()

    def __call__(self, lot: str, done: int, total: int) -> None:
        now = time.monotonic()
        # The first call comes when some items are done: the lot began before.
        start = self._start.setdefault(lot, self._called)
        self._called = now
        if done < total and now - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        rate = done / max(now - start, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        self._console.print(
            f"{self._verb} ({lot}): {done} of {total}, {rate:.0f}/s, "
            f"{left:.0f} s left",
            highlight=False,
        )
