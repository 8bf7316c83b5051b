"""What is measured, and what is said about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """Something that is timed.

    Attributes:
        run: Does it once.
        items: Captions or photos that one run is of.
        operations: Multiplications and additions that a run cannot do without.
        bytes: Bytes that a run has to move to or from memory.
        figures: Other figures by name, known after the first run.
    """

    run: Callable[[], Any]
    items: float
    operations: float = 0.0
    bytes: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A line of the table: what a sum of cases costs beside another sum.

    Attributes:
        name: What the line is about.
        parts: How often the work on an item takes each case, by name.
        reference: The same of the reference; empty for none.
        at_least: The line tells how many times as fast as the reference it
            is, and this is wanted of it.
        at_most: The line tells how many times the reference's time it takes,
            and at most this is wanted.
    """

    name: str
    parts: Mapping[str, float]
    reference: Mapping[str, float] = field(default_factory=dict)
    at_least: float | None = None
    at_most: float | None = None

    @property
    def cases(self) -> set[str]:
        """Names of all cases that the line needs."""
        return {*self.parts, *self.reference}


# Cases are built when they are needed: some hold a model of their own.
CaseBuilders = Mapping[str, Callable[[], Case]]
