"""All groups, one after the other, each in a process of its own."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bmt_keras.bench.figures import Figures
from bmt_keras.bench.machine import describe_machine
from bmt_keras.bench.measure import Measured, measure_group, run_alone
from bmt_keras.bench.options import BenchOptions
from bmt_keras.bench.own_process import run_in_own_process
from bmt_keras.bench.preparation_cases import MANY

OnProgress = Callable[[str], None]
_PREPARATION = "preparation"


def run_suite(
    groups: Sequence[str],
    options: BenchOptions,
    *,
    memory: bool = True,
    on_progress: OnProgress = lambda what: None,
) -> Iterator[dict[str, Any]]:
    """Measures groups of lines, so that a run that ends early has told some.

    Args:
        groups: Their names.
        options: What is measured.
        memory: Run each case once more in a process of its own, to tell the
            most memory that it has resident.
        on_progress: Called with what is measured next.

    Yields:
        After each group, the results until then as JSON values: the machine,
        its load before and after, and the lines of all groups measured.
    """
    machine = describe_machine()
    rows: list[dict[str, Any]] = []
    rates = {}
    for group in groups:
        on_progress(group)
        measured, _ = run_in_own_process(measure_group, group, options)
        rates[group] = measured.rates
        peaks = {}
        if memory:
            peaks = _measure_peaks(group, measured, options, on_progress)
        rows += _to_rows(group, measured, peaks)
        if group == _PREPARATION:
            rows += _prepare_many(options, on_progress)
        yield {
            **machine,
            "load_average_after": list(os.getloadavg()),
            "rounds": options.rounds,
            "settings": {
                name: value
                for name, value in options.overrides.items()
                if value is not None
            },
            "rates": dict(rates),
            "rows": list(rows),
        }


def _measure_peaks(
    group: str,
    measured: Measured,
    options: BenchOptions,
    on_progress: OnProgress,
) -> dict[str, int]:
    """Peak memory in bytes of each case that a line is about."""
    peaks = {}
    for name in dict.fromkeys(n for names in measured.cases for n in names):
        on_progress(f"{group}: memory of {name}")
        _, peaks[name] = run_in_own_process(run_alone, group, name, options)
    return peaks


def _to_rows(
    group: str, measured: Measured, peaks: Mapping[str, int]
) -> list[dict[str, Any]]:
    pairs = zip(measured.figures, measured.cases, strict=True)
    return [
        _to_row(
            group,
            figures,
            max((peaks[n] for n in names if peaks), default=None),
        )
        for figures, names in pairs
    ]


def _to_row(group: str, figures: Figures, peak: int | None) -> dict[str, Any]:
    return {
        "group": group,
        **asdict(figures),
        "is_met": figures.is_met,
        "peak_bytes": peak,
    }


def _prepare_many(
    options: BenchOptions, on_progress: OnProgress
) -> list[dict[str, Any]]:
    """Lines about the memory of preparing many photos, each run once."""
    rows = []
    for count in options.memory_photos:
        name = MANY.format(count=count)
        on_progress(name)
        figures, peak = run_in_own_process(
            run_alone, _PREPARATION, name, options
        )
        rows.append(_to_row(_PREPARATION, figures, peak))
    return rows
