"""Pictures of a training run: its curves, and photos with their captions.

Figures are drawn on their own canvas: nothing here needs a display,
`matplotlib.pyplot` or the state that it keeps.
"""

import csv
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bmt_keras.atomic import write_atomically
from bmt_keras.errors import InputError

_DPI = 120
_TRAIN_COLOR = "#1f5fa8"
_VALIDATION_COLOR = "#d9661f"


class _TextStyle(NamedTuple):
    size: float  # points
    line_height: float  # inches
    line_length: int  # characters that fit a cell, with room for wide ones
    color: str


_CAPTION = _TextStyle(11, 0.2, 34, "black")
_NOTE = _TextStyle(9, 0.165, 42, "#666666")
_Lines = list[tuple[str, _TextStyle]]

# Inches: the width of a cell and its greatest height, the space between cells
# and the space between a picture and its caption.
_CELL = 3.0
_GAP = 0.3
_TEXT_GAP = 0.08


# === Training curves ===


def plot_history(csv_path: str | Path, png_path: str | Path) -> None:
    """Draws loss and accuracy by epoch.

    Args:
        csv_path: The file of `keras.callbacks.CSVLogger`, with the columns
            `epoch` (from 0), `loss` (nats a masked token), `masked_accuracy`
            and perhaps both with the prefix `val_`. Others are passed over.
        png_path: The PNG file to write. It counts epochs from 1.

    Raises:
        InputError: If a column is missing, a value is not a number or there
            is no epoch.
    """
    history = _read_history(Path(csv_path))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_curves(left, history, "loss")
    left.set_title("Loss")
    left.set_ylabel("loss (nats a masked token)")
    _draw_curves(right, history, "masked_accuracy")
    right.set_title("Accuracy")
    right.set_ylabel("accuracy (share of masked tokens)")
    _write_png(figure, png_path)


def _read_history(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        missing = {"epoch", "loss", "masked_accuracy"} - set(columns)
        if missing:
            raise InputError(
                f"{path}: a training log needs the columns epoch, loss and "
                f"masked_accuracy. Found: {', '.join(columns) or 'none'}."
            )
        history: dict[str, list[float]] = {
            name: []
            for name in columns
            if name.removeprefix("val_") in ("epoch", "loss", "masked_accuracy")
        }
        for row in reader:
            for name, values in history.items():
                values.append(_read_number(path, reader.line_num, row[name]))
    if not history["epoch"]:
        raise InputError(f"{path}: a training log needs at least one epoch.")
    return history


def _read_number(path: Path, line: int, text: str | None) -> float:
    # CSVLogger writes NA where an epoch has no such value.
    if text == "NA":
        return math.nan
    try:
        return float(text or "")
    except ValueError as err:
        raise InputError(
            f"{path}, line {line}: expected a number. Found: {text!r}."
        ) from err


def _draw_curves(
    axes: Axes, history: dict[str, list[float]], name: str
) -> None:
    epochs = [epoch + 1 for epoch in history["epoch"]]
    marker = "o" if len(epochs) <= 30 else ""
    for column, label, color in (
        (name, "train", _TRAIN_COLOR),
        (f"val_{name}", "validation", _VALIDATION_COLOR),
    ):
        if column in history:
            axes.plot(
                epochs,
                history[column],
                color=color,
                label=label,
                linewidth=1.8,
                marker=marker,
                markersize=4,
            )
    axes.set_xlabel("epoch")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


# === Photos with captions ===


def draw_caption_grid(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    png_path: str | Path,
    *,
    columns: int = 4,
    notes: Sequence[str] | None = None,
) -> None:
    """Draws pictures in a grid, each with its caption beneath.

    Args:
        pictures: uint8, (height, width, 3) each, RGB. Sizes may differ.
        captions: One caption a picture. Long ones are wrapped.
        png_path: The PNG file to write, whole or not at all.
        columns: Pictures in a row.
        notes: One smaller, grey text a picture, beneath its caption, such as
            a reference or a score.

    Raises:
        ValueError: If there is no picture, a picture is of another shape or
            dtype, there are more or fewer texts than pictures, or `columns`
            is below 1.
    """
    _check_grid(pictures, captions, columns, notes)
    texts = list(map(_wrap, captions, notes or [""] * len(captions)))
    starts = range(0, len(pictures), columns)
    heights = [
        _measure_row(pictures[i : i + columns], texts[i : i + columns])
        for i in starts
    ]
    columns = min(columns, len(pictures))
    width = columns * (_CELL + _GAP) + _GAP
    height = sum(map(sum, heights)) + _GAP * (len(heights) + 1)
    figure = Figure(figsize=(width, height))
    top = height - _GAP
    for start, (picture_height, text_height) in zip(
        starts, heights, strict=True
    ):
        for i in range(start, min(start + columns, len(pictures))):
            left = _GAP + (i - start) * (_CELL + _GAP)
            box = (left, top - picture_height, _CELL, picture_height)
            _draw_cell(figure, box, pictures[i], texts[i])
        top -= picture_height + text_height + _GAP
    _write_png(figure, png_path)


def _check_grid(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    columns: int,
    notes: Sequence[str] | None,
) -> None:
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1. Received: {columns}")
    if not pictures:
        raise ValueError("`pictures` must hold a picture. Received: none")
    for name, texts in (("captions", captions), ("notes", notes)):
        if texts is not None and len(texts) != len(pictures):
            raise ValueError(
                f"`{name}` must hold one text a picture. Received: "
                f"{len(texts)} texts, {len(pictures)} pictures"
            )
    for picture in pictures:
        rgb = picture.ndim == 3 and picture.shape[-1] == 3
        if not rgb or picture.dtype != np.uint8:
            raise ValueError(
                "`pictures` must be uint8 of shape (height, width, 3). "
                f"Received: {picture.dtype} of shape {picture.shape}"
            )


def _wrap(caption: str, note: str) -> _Lines:
    return [
        (line, style)
        for text, style in ((caption, _CAPTION), (note, _NOTE))
        for line in textwrap.wrap(text, style.line_length)
    ]


def _measure_row(
    pictures: Sequence[np.ndarray], texts: Sequence[_Lines]
) -> tuple[float, float]:
    aspect = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    text_height = max(
        sum(style.line_height for _, style in lines) for lines in texts
    )
    return _CELL * min(1.0, aspect), _TEXT_GAP + text_height


def _draw_cell(
    figure: Figure,
    box: tuple[float, float, float, float],
    picture: np.ndarray,
    lines: _Lines,
) -> None:
    # The box is left, bottom, width and height in inches; the text is below.
    width, height = figure.get_size_inches()
    scaled = np.divide(box, (width, height, width, height))
    axes = figure.add_axes(tuple(scaled), anchor="SW")
    axes.imshow(picture)
    axes.set_axis_off()
    y = box[1] - _TEXT_GAP
    for line, style in lines:
        # A caption with two dollar signs is no formula.
        text = figure.text(scaled[0], y / height, line, parse_math=False)
        text.set(size=style.size, color=style.color, va="top")
        y -= style.line_height


def _write_png(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure)
    with write_atomically(path, "wb") as file:
        figure.savefig(file, format="png", dpi=_DPI)
