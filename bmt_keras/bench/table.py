"""The table that is printed."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

_COLUMNS = (
    "",
    "ms an item",
    "items/s",
    "beside",
    "ratio",
    "rounds",
    "wanted",
    "floor ms",
    "x floor",
    "peak MB",
    "other",
)


def make_table(group: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Makes the table of a group.

    Args:
        group: Its name.
        rows: Its lines, of `run_suite`.

    Returns:
        The table.
    """
    table = Table(title=group, title_justify="left")
    for column in _COLUMNS:
        words = column in ("", "beside", "other")
        table.add_column(column, justify="left" if words else "right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    spread = wanted = ""
    if row["ratio"] is not None:
        spread = f"{row['ratio_low']:.3g}-{row['ratio_high']:.3g}"
    if row["wanted"] is not None:
        sign = ">=" if row["is_speed"] else "<="
        met = "yes" if row["is_met"] else "no"
        wanted = f"{sign} {row['wanted']:g}: {met}"
    peak = row["peak_bytes"]
    return [
        row["name"],
        f"{row['seconds'] * 1e3:.2f}",
        f"{1 / row['seconds']:.1f}",
        row["reference"],
        "" if row["ratio"] is None else f"{row['ratio']:.3g}",
        spread,
        wanted,
        f"{row['floor_seconds'] * 1e3:.2f}" if row["floor_seconds"] else "",
        "" if row["over_floor"] is None else f"{row['over_floor']:.1f}",
        "" if peak is None else f"{peak / 1e6:.0f}",
        ", ".join(f"{v:.3g} {k}" for k, v in row["others"].items()),
    ]
