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
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import corpus
import numpy as np

from bmt_keras.atomic import write_atomically
from bmt_keras.training.own_process import end_with

_PACKAGES = ("bmt-keras", "tensorflow", "keras", "keras-nlp", "numpy")
Times = Mapping[str, Sequence[float]]


class Case(NamedTuple):
    """Something that is timed; one run is of `items` captions or images."""

    run: Callable[[], Any]
    items: float


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
    small: bool = False


class Group(NamedTuple):
    """Rows whose cases take turns, in a process of their own.

    `cases` has a function for each name, of a module, that builds the case:
    some hold a model of their own.
    """

    name: str
    rows: Sequence[Row]
    cases: Mapping[str, Callable[[Options], Case]]


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
    figures = {
        "name": row.name,
        "seconds": float(np.median(own)),
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
    ratios = reference / own if is_speed else own / reference
    ratio = float(np.median(ratios))
    wanted = row.at_least if is_speed else row.at_most
    met = None
    if wanted is not None:
        met = ratio >= wanted if is_speed else ratio <= wanted
    return {
        **figures,
        "reference_seconds": float(np.median(reference)),
        "ratio": ratio,
        "ratio_low": float(ratios.min()),
        "ratio_high": float(ratios.max()),
        "is_speed": is_speed,
        "wanted": wanted,
        "is_met": met,
    }


def _add(parts: Mapping[str, float], times: Times) -> np.ndarray:
    return sum(share * np.array(times[name]) for name, share in parts.items())


def measure_group(group: Group, options: Options) -> list[dict[str, Any]]:
    """Measures a group's rows in this process."""
    rows = [row for row in group.rows if options.match in row.name]
    used = {n: None for row in rows for n in (*row.parts, *row.reference)}
    cases = {name: group.cases[name](options) for name in used}
    times = take_turns(cases, rounds=options.rounds)
    return [{"group": group.name, **compare(row, times)} for row in rows]


def run_groups(groups: Sequence[Group], options: Options, out: Path) -> None:
    """Measures group by group; prints and writes the rows after each."""
    rows: list[dict[str, Any]] = []
    results = {**describe_machine(), "rounds": options.rounds, "rows": rows}
    for group in groups:
        if not any(options.match in row.name for row in group.rows):
            continue
        with own_process() as pool:
            measured = pool.submit(measure_group, group, options).result()
        rows += measured
        print(*map(format_row, measured), sep="\n")
        results["load_average_after"] = list(os.getloadavg())
        write_json(out, results)


def own_process() -> ProcessPoolExecutor:
    """A fresh process for functions of modules, which ends with this one."""
    context = get_context("spawn")
    return ProcessPoolExecutor(1, context, end_with, (os.getpid(),))


# === Results ===


def describe_machine() -> dict[str, Any]:
    """Versions, processor, cores, load and date."""
    info = Path("/proc/cpuinfo").read_text()
    names = re.findall(r"^model name\s*: (.*)", info, re.MULTILINE)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()),
    }


def format_row(row: Mapping[str, Any]) -> str:
    """A line of text about a row of `compare`."""
    text = f"{row['name']}: {row['seconds'] * 1e3:.2f} ms per item"
    if row["ratio"] is None:
        return text
    kind = "as fast as" if row["is_speed"] else "the time of"
    text += (
        f", {row['ratio']:.3g} times ({row['ratio_low']:.3g}-"
        f"{row['ratio_high']:.3g}) {kind} {row['reference']}"
    )
    if row["wanted"] is None:
        return text
    bound = "at least" if row["is_speed"] else "at most"
    met = "met" if row["is_met"] else "NOT MET"
    return f"{text}; {bound} {row['wanted']:g}: {met}"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all."""
    with write_atomically(path) as file:
        file.write(json.dumps(content, indent=1) + "\n")
    print(f"{path}: written", flush=True)


# === The command line of the scripts that call the library ===


def main(description: str | None, groups: Sequence[Group]) -> None:
    """Runs a script: parses its options and measures its groups."""
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
    add("--small", action="store_true", help="tiny models: is all in order?")
    given = vars(parser.parse_args())
    if (given["captions"] is None) != (given["images"] is None):
        parser.error("--captions and --images must be given together.")
    out = given.pop("out")
    if given["small"]:
        given |= {"limit": 8, "rounds": 1, "steps": 1}
    with with_data(Options(**given)) as options:
        run_groups(groups, options, out)


@contextmanager
def with_data(options: Options) -> Iterator[Options]:
    """Makes images and captions, for as long as needed, if none are given."""
    if options.captions is not None:
        yield options
        return
    with tempfile.TemporaryDirectory() as name:
        captions, images = Path(name, "captions.json"), Path(name, "images")
        corpus.write_corpus(Path(name), count=options.limit)
        yield dataclasses.replace(options, captions=captions, images=images)
