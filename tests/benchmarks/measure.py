"""Measures cases in turns, compares them and writes the ratios.

Cases of a group take turns in rounds, so that a busy machine slows all of them
alike. A row's ratio is computed within each round; the median is reported with
the lowest and the highest. Each group runs in a process of its own, and the
file is written anew, whole, as soon as a group is done.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import corpus
from rich.console import Console
from rich.table import Table

CONSOLE = Console(highlight=False)
if not CONSOLE.is_terminal:
    CONSOLE = Console(highlight=False, width=150)
_PACKAGES = ("bmt-keras", "tensorflow", "keras", "keras-nlp", "numpy")
_COLUMNS = {
    "name": "",
    "ms": "ms per item",
    "reference": "compared with",
    "ratio": "ratio",
    "spread": "rounds",
    "wanted": "wanted",
    "peak": "peak MB",
}
Times = Mapping[str, Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Case:
    """Something that is timed; one run is of `items` captions or images."""

    run: Callable[[], Any]
    items: float


# Cases are built when they are needed: some hold a model of their own.
CaseBuilders = Mapping[str, Callable[[], Case]]


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: what a sum of cases costs, compared with another.

    Attributes:
        parts: How often the work on an item takes each case, by name.
        reference: The same of the reference; empty for none.
        at_least: The ratio is of speed, and at least this is wanted.
        at_most: The ratio is of time, and at most this is wanted.
    """

    name: str
    parts: Mapping[str, float]
    reference: Mapping[str, float] = dataclasses.field(default_factory=dict)
    at_least: float | None = None
    at_most: float | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes of a run, and its data (see `parse_options`)."""

    captions: Path | None = None
    images: Path | None = None
    vocabulary: Path | None = None
    limit: int = 400
    rounds: int = 5
    steps: int = 12
    match: str = ""
    memory: bool = False
    small: bool = False


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows whose cases take turns, and the function that builds the cases.

    `build` must be a function of a module: a fresh process calls it with the
    options and a stack that closes, at the end, what the cases have opened.
    """

    name: str
    rows: Sequence[Row]
    build: Callable[[Options, ExitStack], CaseBuilders]


# === Measuring ===


def take_turns(
    cases: Mapping[str, Case], *, rounds: int
) -> dict[str, list[float]]:
    """Gives the seconds per item of each round, by case."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    # The first round traces graphs and fills caches; it does not count.
    for number in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case.run()
            taken = time.perf_counter() - start
            if number:
                seconds[name].append(taken / case.items)
    return seconds


def compare(row: Row, times: Times) -> dict[str, Any]:
    """Computes a row's figures from the seconds per item of each round."""
    own = _add(row.parts, times)
    figures: dict[str, Any] = {
        "name": row.name,
        "seconds": statistics.median(own),
        "reference": " + ".join(
            name if share == 1 else f"{share:g} x {name}"
            for name, share in row.reference.items()
        ),
        "ratio": None,
    }
    if not row.reference:
        return figures
    reference = _add(row.reference, times)
    is_speed = row.at_most is None
    pairs = zip(own, reference, strict=True)
    ratios = [b / a if is_speed else a / b for a, b in pairs]
    ratio = statistics.median(ratios)
    wanted = row.at_least if is_speed else row.at_most
    met = None
    if wanted is not None:
        met = ratio >= wanted if is_speed else ratio <= wanted
    return {
        **figures,
        "reference_seconds": statistics.median(reference),
        "ratio": ratio,
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "is_speed": is_speed,
        "wanted": wanted,
        "is_met": met,
    }


def _add(parts: Mapping[str, float], times: Times) -> list[float]:
    rounds = zip(*(times[name] for name in parts), strict=True)
    shares = list(parts.values())
    return [
        sum(a * b for a, b in zip(shares, each, strict=True)) for each in rounds
    ]


def measure_group(group: Group, options: Options) -> list[dict[str, Any]]:
    """Measures a group's rows in this process."""
    rows = [row for row in group.rows if options.match in row.name]
    used = {n: None for row in rows for n in (*row.parts, *row.reference)}
    with ExitStack() as stack:
        builders = group.build(options, stack)
        cases = {name: builders[name]() for name in used}
        times = take_turns(cases, rounds=options.rounds)
    return [{"group": group.name, **compare(row, times)} for row in rows]


def run_case(group: Group, name: str, options: Options) -> None:
    """Builds one case and runs it once, so that its memory can be seen."""
    with ExitStack() as stack:
        group.build(options, stack)[name]().run()


# === Processes ===


def own_process() -> ProcessPoolExecutor:
    """A fresh process for functions of modules, which ends with this one."""
    return ProcessPoolExecutor(
        1,
        mp_context=get_context("spawn"),
        initializer=end_with,
        initargs=(os.getpid(),),
    )


def run_in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a module's function in a fresh process; gives (result, peak)."""
    with own_process() as pool:
        return pool.submit(_with_peak, work, arguments).result()


def end_with(parent: int) -> None:
    """Has this process end soon after its parent, even a killed one."""

    def watch() -> None:
        # What outlives its parent becomes another process' child.
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _with_peak(
    work: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any, int | None]:
    """Adds the most memory in bytes that this process had resident."""
    result = work(*arguments)
    # `getrusage` would begin with the parent's memory on Linux.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(e.split()[1]) for e in lines if e.startswith("VmHWM:")]
    return result, peaks[0] * 1024 if peaks else None


# === A run ===


def run_groups(
    groups: Sequence[Group], options: Options, out: Path
) -> list[dict[str, Any]]:
    """Measures group by group; prints and writes the rows after each."""
    rows: list[dict[str, Any]] = []
    results = {**describe_machine(), "rounds": options.rounds, "rows": rows}
    for group in groups:
        if not any(options.match in row.name for row in group.rows):
            continue
        measured, _ = run_in_own_process(measure_group, group, options)
        if options.memory:
            _add_peaks(measured, group, options)
        rows += measured
        print_rows(group.name, measured)
        results["load_average_after"] = list(os.getloadavg())
        write_json(out, results)
    return rows


def _add_peaks(
    rows: Sequence[dict[str, Any]], group: Group, options: Options
) -> None:
    parts = {row.name: row.parts for row in group.rows}
    peaks = {
        name: run_in_own_process(run_case, group, name, options)[1]
        for name in {part: 0 for row in rows for part in parts[row["name"]]}
    }
    for row in rows:
        known = [peaks[part] for part in parts[row["name"]] if peaks[part]]
        row["peak_bytes"] = max(known, default=None)


def describe_machine() -> dict[str, Any]:
    """Versions, processor, cores, load and date."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [e.partition(":")[2] for e in lines if e.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": names[0].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()),
    }


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a group's table."""
    print_table(title, _COLUMNS, [_to_cells(row) for row in rows])


def _to_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    peak = row.get("peak_bytes")
    cells = {
        "name": row["name"],
        "ms": f"{row['seconds'] * 1e3:.2f}",
        "peak": f"{peak / 1e6:.0f}" if peak else None,
    }
    if row["ratio"] is None:
        return cells
    cells |= {
        "reference": row["reference"],
        "ratio": f"{row['ratio']:.3g}",
        "spread": f"{row['ratio_low']:.3g}-{row['ratio_high']:.3g}",
    }
    if row["wanted"] is not None:
        sign = ">=" if row["is_speed"] else "<="
        met = "yes" if row["is_met"] else "no"
        cells["wanted"] = f"{sign} {row['wanted']:g}: {met}"
    return cells


def print_table(
    title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Prints some of the rows' values; floats get one decimal."""
    table = Table(*columns.values(), title=title, title_justify="left")
    for row in rows:
        cells = (row.get(name) for name in columns)
        table.add_row(
            *(
                f"{cell:.1f}"
                if isinstance(cell, float)
                else str(cell if cell is not None else "")
                for cell in cells
            )
        )
    CONSOLE.print(table)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    hidden.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    hidden.replace(path)
    CONSOLE.print(f"{path}: written")


# === The command line of the scripts that call the library ===


def main(
    description: str,
    groups: Sequence[Group],
    arguments: Sequence[str] | None = None,
) -> None:
    """Runs a script: parses its options and measures its groups."""
    options, out = parse_options(description, arguments)
    with with_data(options) as options:
        run_groups(groups, options, out)


def parse_options(
    description: str, arguments: Sequence[str] | None = None
) -> tuple[Options, Path]:
    """Parses the options that all scripts share."""
    parser = argparse.ArgumentParser(description=description)
    add, default = parser.add_argument, Options()
    add("--out", type=Path, required=True, help="JSON file to write")
    add("--captions", type=Path, help="captions in COCO's format")
    add("--images", type=Path, help="folder of their images")
    add("--vocabulary", type=Path, help="a SentencePiece model")
    add("--limit", type=int, help="images to use", default=default.limit)
    add("--rounds", type=int, default=default.rounds)
    add("--steps", type=int, help="batches per round", default=default.steps)
    add("--match", default="", help="only rows with this in their names")
    add("--memory", action="store_true", help="peak memory of each case, too")
    add("--small", action="store_true", help="tiny models: is all in order?")
    given = vars(parser.parse_args(arguments))
    if (given["captions"] is None) != (given["images"] is None):
        parser.error("--captions and --images must be given together.")
    out = given.pop("out")
    if given["small"]:
        given |= {"limit": 8, "rounds": 1, "steps": 1}
    return Options(**given), out


@contextmanager
def with_data(options: Options) -> Iterator[Options]:
    """Makes images and captions, for as long as needed, if none are given."""
    if options.captions is not None:
        yield options
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write_corpus(folder, count=options.limit)
        yield dataclasses.replace(
            options,
            captions=folder / "captions.json",
            images=folder / "images",
        )
