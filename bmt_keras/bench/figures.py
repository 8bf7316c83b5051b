"""A line of the table, computed from the times of its cases."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bmt_keras.bench.case import Case, Row
from bmt_keras.bench.floor import MATRICES, MEMORY, floor_seconds

Times = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Figures:
    """What was measured of a line.

    Attributes:
        name: What the line is about.
        seconds: An item's, median of the rounds.
        reference: What it stands beside, empty for nothing.
        reference_seconds: The reference's, an item.
        ratio: Median of the rounds' ratios; None without a reference.
        ratio_low: The lowest of them.
        ratio_high: The highest.
        is_speed: The ratio tells how many times as fast as the reference;
            else how many times its time.
        wanted: The least ratio of speed or the most of time that is wanted.
        floor_seconds: An item's on a machine that never waits.
        over_floor: How many times the floor is taken, median of the rounds;
            None where there is no floor.
        others: Other figures of the cases, by name.
    """

    name: str
    seconds: float
    reference: str = ""
    reference_seconds: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    is_speed: bool = True
    wanted: float | None = None
    floor_seconds: float = 0.0
    over_floor: float | None = None
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_met(self) -> bool | None:
        """Whether what is wanted was measured; None where nothing is."""
        if self.wanted is None or self.ratio is None:
            return None
        if self.is_speed:
            return self.ratio >= self.wanted
        return self.ratio <= self.wanted


def compute_figures(
    row: Row, cases: Mapping[str, Case], times: Times
) -> Figures:
    """Computes a line's figures, round by round.

    Args:
        row: The line.
        cases: All of its cases.
        times: Seconds an item of each round, by case; the floor's, too.

    Returns:
        The figures.
    """
    own = _add(row.parts, times)
    floors = [
        sum(
            share
            * floor_seconds(cases[name], {MATRICES: operation, MEMORY: byte})
            for name, share in row.parts.items()
        )
        for operation, byte in zip(times[MATRICES], times[MEMORY], strict=True)
    ]
    floor = statistics.median(floors)
    figures = Figures(
        row.name,
        seconds=statistics.median(own),
        floor_seconds=floor,
        over_floor=_median_ratio(own, floors) if floor else None,
        others={
            name: value
            for part in row.parts
            for name, value in cases[part].figures.items()
        },
    )
    if not row.reference:
        return figures
    reference = _add(row.reference, times)
    pairs = zip(own, reference, strict=True)
    if row.at_most is None:
        ratios = [theirs / ours for ours, theirs in pairs]
    else:
        ratios = [ours / theirs for ours, theirs in pairs]
    return replace(
        figures,
        reference=_describe(row.reference),
        reference_seconds=statistics.median(reference),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        is_speed=row.at_most is None,
        wanted=row.at_least if row.at_most is None else row.at_most,
    )


def _add(parts: Mapping[str, float], times: Times) -> list[float]:
    rounds = zip(*(times[name] for name in parts), strict=True)
    return [
        sum(
            share * seconds
            for share, seconds in zip(parts.values(), each, strict=True)
        )
        for each in rounds
    ]


def _median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(one / other for one, other in pairs)


def _describe(parts: Mapping[str, float]) -> str:
    return " + ".join(
        name if share == 1 else f"{share:g} x {name}"
        for name, share in parts.items()
    )
