"""Measured figures: a table to look at, and JSON to keep."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.table import Table


def make_table(
    columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> Table:
    """Makes a table of some of the rows' values.

    Args:
        columns: mapping of a value's name to its column's title.
        rows: mapping of name to value, one a row; None is left blank.

    Returns:
        Table with one decimal for floats.
    """
    table = Table(*columns.values())
    for row in rows:
        cells = (row[name] for name in columns)
        table.add_row(
            *(
                f"{cell:.1f}"
                if isinstance(cell, float)
                else ""
                if cell is None
                else str(cell)
                for cell in cells
            )
        )
    return table


def describe_run(model: Path) -> dict[str, Any]:
    """Tells what figures are of: the model, TensorFlow and the cores."""
    return {
        "model": str(model),
        "tensorflow": tf.__version__,
        "cpus": os.cpu_count(),
    }


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Writes figures as JSON, whole or not at all.

    Args:
        path: Path of the file; missing folders are made.
        figures: mapping, ready for JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
