"""Measures the lines of a group; what a process of its own runs."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bmt_keras.bench.accelerator_cases import AcceleratorCases
from bmt_keras.bench.accelerator_rows import accelerator_rows
from bmt_keras.bench.captioning_cases import (
    CaptioningCases,
    captioning_rows,
)
from bmt_keras.bench.case import CaseBuilders, Row
from bmt_keras.bench.export_cases import ExportCases, export_rows
from bmt_keras.bench.figures import Figures, compute_figures
from bmt_keras.bench.floor import accelerator_floor_cases, floor_cases
from bmt_keras.bench.growth_cases import GrowthCases, growth_rows
from bmt_keras.bench.options import BenchOptions
from bmt_keras.bench.peer_cases import PeerCases, peer_rows
from bmt_keras.bench.preparation_cases import (
    PreparationCases,
    preparation_rows,
)
from bmt_keras.bench.rounds import take_turns
from bmt_keras.bench.training_cases import TrainingCases
from bmt_keras.bench.training_rows import pipeline_rows, training_rows

Rows = Callable[[], list[Row]]

_ACCELERATOR = "accelerator"


class Cases(Protocol):
    """What builds the cases of a group."""

    @property
    def builders(self) -> CaseBuilders:
        """How each case is built."""


# For each group its lines, and what builds their cases.
_GROUPS: Mapping[str, tuple[Rows, Callable[[BenchOptions, Path], Cases]]] = {
    "training": (training_rows, TrainingCases),
    "pipeline": (pipeline_rows, TrainingCases),
    "captioning": (captioning_rows, CaptioningCases),
    "preparation": (preparation_rows, PreparationCases),
    "export": (export_rows, ExportCases),
    "growth": (growth_rows, GrowthCases),
    "peers": (peer_rows, PeerCases),
    _ACCELERATOR: (accelerator_rows, AcceleratorCases),
}


@dataclass(frozen=True)
class Measured:
    """What was measured of a group.

    Attributes:
        figures: Of each line.
        cases: Names of the cases that each line is about.
        rates: Operations and bytes a second, medians.
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
    make_rows, make_cases = _GROUPS[group]
    rows = [row for row in make_rows() if options.match in row.name]
    with tempfile.TemporaryDirectory() as folder:
        builders = make_cases(options, Path(folder)).builders
        used = {name: None for row in rows for name in row.cases}
        if group == _ACCELERATOR:
            cases = accelerator_floor_cases()
        else:
            cases = floor_cases()
        floor = list(cases)
        cases |= {name: builders[name]() for name in used}
        times = take_turns(cases, rounds=options.rounds)
    return Measured(
        [compute_figures(row, cases, times) for row in rows],
        [list(row.parts) for row in rows],
        {name: 1 / statistics.median(times[name]) for name in floor},
    )


def run_alone(group: str, case: str, options: BenchOptions) -> Figures:
    """Builds one case and runs it once, for its memory to be told.

    Args:
        group: Its group.
        case: Its name.
        options: What is measured.

    Returns:
        Its time, with all that a first run does.
    """
    _, make_cases = _GROUPS[group]
    with tempfile.TemporaryDirectory() as folder:
        built = make_cases(options, Path(folder)).builders[case]()
        start = time.perf_counter()
        built.run()
        seconds = time.perf_counter() - start
    return Figures(case, seconds=seconds / built.items)
