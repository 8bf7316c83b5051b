"""All groups, one after the other, each in a process of its own."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from bmt_keras.bench.machine import describe_machine
from bmt_keras.bench.measure import measure_group, run_alone
from bmt_keras.bench.options import BenchOptions
from bmt_keras.bench.own_process import run_in_own_process


def run_suite(
    groups: Sequence[str],
    options: BenchOptions,
    *,
    memory: bool = True,
    on_progress: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Measures groups of lines.

    Args:
        groups: Their names.
        options: What is measured.
        memory: Run each case once more in a process of its own, to tell the
            most memory that it has resident.
        on_progress: Called with what is measured next.

    Returns:
        The results as JSON values: the machine before and after, the settings,
        and the lines.
    """
    machine = describe_machine()
    lines: list[dict[str, Any]] = []
    rates = {}
    for group in groups:
        on_progress(group)
        measured, _ = run_in_own_process(measure_group, group, options)
        rates[group] = measured.rates
        peaks: dict[str, int] = {}
        if memory:
            for name in sorted({n for names in measured.cases for n in names}):
                on_progress(f"{group}: memory of {name}")
                _, peaks[name] = run_in_own_process(
                    run_alone, group, name, options
                )
        for figures, names in zip(
            measured.figures, measured.cases, strict=True
        ):
            lines.append(
                {
                    "group": group,
                    **asdict(figures),
                    "is_met": figures.is_met,
                    "peak_bytes": max(
                        (peaks[name] for name in names), default=None
                    )
                    if memory
                    else None,
                }
            )
    return {
        **machine,
        "load_average_after": describe_machine()["load_average"],
        "rounds": options.rounds,
        "seconds_an_operation_and_a_byte": rates,
        "rows": lines,
    }
