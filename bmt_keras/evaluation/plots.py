"""Pictures of a training run: its curves, and images with their captions.

Figures are drawn on their own canvas: nothing here needs a display,
`matplotlib.pyplot` or the state that it keeps.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

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
# Inches of a cell of the grid: a square image and three lines of caption.
_CELL = (3.3, 3.9)


# === Training curves ===


def plot_history(csv_path: str | Path, png_path: str | Path) -> None:
    """Draws loss and accuracy by epoch.

    Args:
        csv_path: The file of `keras.callbacks.CSVLogger`, with the columns
            `epoch` (from 0), `loss` (nats per masked token), `masked_accuracy`
            and perhaps both with the prefix `val_`. Others are ignored.
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
    left.set_ylabel("loss (nats per masked token)")
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


# === Images with captions ===


def draw_caption_grid(
    images: Sequence[Path | np.ndarray],
    captions: Sequence[str],
    png_path: str | Path,
) -> None:
    """Draws images in a grid, three or four to a row, above their captions.

    Args:
        images: Files, or RGB pixels, uint8, (height, width, 3). Sizes may
            differ.
        captions: A caption for each image. Long ones are wrapped.
        png_path: The PNG file to write, whole or not at all.

    Raises:
        ValueError: There is no image, pixels have another shape or dtype, or
            there are more or fewer captions than images.
    """
    if not len(images) == len(captions) > 0:
        raise ValueError(
            "`images` and `captions` must be as many, and at least one. "
            f"Received: {len(images)} images, {len(captions)} captions."
        )
    pixels = list(map(_read_rgb, images))
    columns = min(len(images), 3 if len(images) <= 9 else 4)
    rows = math.ceil(len(images) / columns)
    size = (columns * _CELL[0], rows * _CELL[1])
    figure = Figure(figsize=size, layout="constrained")
    # Matplotlib wraps a text at the edge of its own subfigure.
    cells = figure.subfigures(rows, columns, squeeze=False).flat
    for cell, image, caption in zip(cells, pixels, captions, strict=False):
        axes = cell.add_subplot(anchor="S")
        axes.imshow(image)
        axes.set_axis_off()
        # A caption with two dollar signs is no formula.
        cell.supxlabel(caption, size=11, wrap=True, parse_math=False)
    _write_png(figure, png_path)


def _read_rgb(image: Path | np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        import tensorflow as tf

        from bmt_keras.data.images import decode_rgb

        return decode_rgb(tf.io.read_file(str(image))).numpy()
    is_rgb = image.ndim == 3 and image.shape[-1] == 3
    if not is_rgb or image.dtype != np.uint8:
        raise ValueError(
            "`images` must be uint8 of shape (height, width, 3). Received: "
            f"{image.dtype} of shape {image.shape}."
        )
    return image


def _write_png(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure)
    with write_atomically(path, "wb") as file:
        figure.savefig(file, format="png", dpi=_DPI)
