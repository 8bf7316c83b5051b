"""Measures the lines of a group; what a process of its own runs."""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bmt_keras.bench.case import Case, CaseBuilders, Row
from bmt_keras.bench.figures import Figures, compute_figures
from bmt_keras.bench.floor import floor_cases
from bmt_keras.bench.options import BenchOptions
from bmt_keras.bench.rounds import take_turns
from bmt_keras.bench.training_cases import (
    TrainingCases,
    pipeline_rows,
    training_rows,
)

Rows = Callable[[], list[Row]]
Builders = Callable[[BenchOptions, Path], CaseBuilders]


def _training(options: BenchOptions, folder: Path) -> CaseBuilders:
    return TrainingCases(options, folder).builders


GROUPS: dict[str, tuple[Rows, Builders]] = {
    "training": (training_rows, _training),
    "pipeline": (pipeline_rows, _training),
}


@dataclass(frozen=True)
class Measured:
    """What was measured of a group.

    Attributes:
        figures: Of each line.
        cases: Names of the cases that each line is about.
        rates: Seconds an operation and a byte, medians.
    """

    figures: list[Figures]
    cases: list[list[str]]
    rates: dict[str, float]


def measure_group(group: str, options: BenchOptions) -> Measured:
    """Measures a group's lines, all cases taking turns.

    Args:
        group: Its name.
        options: What is measured.

    Returns:
        The figures.
    """
    make_rows, make_builders = GROUPS[group]
    rows = make_rows()
    with tempfile.TemporaryDirectory() as folder:
        builders = make_builders(options, Path(folder))
        used = {name: None for row in rows for name in row.cases}
        cases: dict[str, Case] = floor_cases()
        floor = list(cases)
        cases |= {name: builders[name]() for name in used}
        times = take_turns(cases, rounds=options.rounds)
    return Measured(
        [compute_figures(row, cases, times) for row in rows],
        [list(row.parts) for row in rows],
        {name: statistics.median(times[name]) for name in floor},
    )


def run_alone(group: str, case: str, options: BenchOptions) -> None:
    """Builds one case and runs it once, for its memory to be told."""
    _, make_builders = GROUPS[group]
    with tempfile.TemporaryDirectory() as folder:
        make_builders(options, Path(folder))[case]().run()
