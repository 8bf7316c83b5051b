"""Pictures of a run: its curves, images with captions, charts of the report.

Figures are drawn on their own canvas: nothing here needs a display,
`matplotlib.pyplot` or the state that it keeps.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from bmt_keras.atomic import write_atomically
from bmt_keras.errors import InputError
from bmt_keras.evaluation.reliability import ReliabilityBin
from bmt_keras.evaluation.scores import PassesPoint

_COLORS = ("#1f5fa8", "#d9661f")
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
        InputError: There is no epoch, a column is missing or a value no number.
    """
    history = _read_history(Path(csv_path))
    epochs = [epoch + 1 for epoch in history["epoch"]]
    # Beyond some 30 epochs the marks would hide the line.
    line = "o-" if len(epochs) <= 30 else "-"
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, name, label in zip(
        figure.subplots(1, 2),
        ("loss", "masked_accuracy"),
        ("loss (nats per masked token)", "accuracy (share of masked tokens)"),
        strict=True,
    ):
        for column, side, color in zip(
            (name, f"val_{name}"), ("train", "validation"), _COLORS, strict=True
        ):
            if values := history.get(column):
                axes.plot(epochs, values, line, color=color, label=side)
        axes.set_ylim(bottom=0)
        _finish(axes, "epoch", label, is_whole=True)
        axes.legend(frameon=False)
    _write_png(figure, png_path)


def _read_history(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or []
    wanted = {"epoch", "loss", "masked_accuracy"}
    if not rows or wanted - set(columns):
        raise InputError(
            f"{path}: a training log needs the columns epoch, loss and "
            "masked_accuracy, and at least one epoch. Found: "
            f"{', '.join(columns) or 'none'}; {len(rows)} epochs."
        )
    try:
        return {
            # CSVLogger writes NA where an epoch has no such value.
            name: [
                float((row[name] or "").replace("NA", "nan")) for row in rows
            ]
            for name in columns
            if name.removeprefix("val_") in wanted
        }
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error


# === Images with captions ===


def draw_caption_grid(
    paths: Sequence[Path], captions: Sequence[str], png_path: str | Path
) -> None:
    """Draws images in a grid, three or four to a row, above their captions.

    Args:
        paths: The images' files. Sizes may differ.
        captions: A caption for each image. Long ones are wrapped.
        png_path: The PNG file to write, whole or not at all.

    Raises:
        ValueError: There is no image, or not one caption for each.
    """
    # The other pictures do without TensorFlow.
    import tensorflow as tf

    from bmt_keras.data.images import decode_rgb

    if not len(paths) == len(captions) > 0:
        raise ValueError(
            "`paths` and `captions` must be as many, and at least one. "
            f"Received: {len(paths)} paths, {len(captions)} captions."
        )
    columns = min(len(paths), 3 if len(paths) <= 9 else 4)
    rows = math.ceil(len(paths) / columns)
    size = (columns * _CELL[0], rows * _CELL[1])
    figure = Figure(figsize=size, layout="constrained")
    # Matplotlib wraps a text at the edge of its own subfigure.
    cells = figure.subfigures(rows, columns, squeeze=False).flat
    for cell, path, caption in zip(cells, paths, captions, strict=False):
        axes = cell.add_subplot(anchor="S")
        axes.imshow(decode_rgb(tf.io.read_file(str(path))).numpy())
        axes.set_axis_off()
        # A caption with two dollar signs is no formula.
        cell.supxlabel(caption, size=11, wrap=True, parse_math=False)
    _write_png(figure, png_path)


# === Charts of the report, as wide as a phone: PNG files in memory ===


def draw_lengths(lengths: Mapping[str, Sequence[int]]) -> bytes:
    """Draws how long captions are: words of each, by who wrote them."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    longest = max(max(counts) for counts in lengths.values())
    axes.hist(
        [list(counts) for counts in lengths.values()],
        [number - 0.5 for number in range(longest + 2)],
        density=True,
        color=_COLORS,
        label=list(lengths),
    )
    _finish(axes, "words in the caption", "share of captions", is_whole=True)
    axes.legend(frameon=False)
    return _to_png(figure)


def draw_reliability(bins: Sequence[ReliabilityBin]) -> bytes:
    """Draws accuracy against confidence; perfect is the diagonal.

    The area of a dot is the share of its guesses.

    Reference:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599, figure 1.
    """
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1)
    counts, x, y = np.array(bins).T
    axes.plot(x, y, color=_COLORS[0])
    axes.scatter(x, y, 12 + 150 * counts / counts.sum(), color=_COLORS[0])
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    _finish(axes, "confidence", "share correct")
    return _to_png(figure)


def draw_passes(points: Sequence[PassesPoint]) -> bytes:
    """Draws CIDEr-D and time against the number of decoding passes."""
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    passes, cider_d, seconds = zip(*points, strict=True)
    for place, (axes, values, label) in enumerate(
        ((upper, cider_d, "CIDEr-D"), (lower, seconds, "seconds"))
    ):
        axes.plot(passes, values, "o-", color=_COLORS[place])
        # Scores that are all 0 have a height to be drawn at, too.
        axes.set_ylim(bottom=0, top=max(*values, 0.01) * 1.1)
        _finish(axes, "passes", label, is_whole=True)
    upper.set_xlabel("")
    return _to_png(figure)


def _finish(
    axes: Axes, x_label: str, y_label: str, *, is_whole: bool = False
) -> None:
    axes.set(xlabel=x_label, ylabel=y_label)
    if is_whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _to_png(figure: Figure, dpi: int = 160) -> bytes:
    FigureCanvasAgg(figure)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    # 256 colors are enough, in half the bytes and less.
    image = Image.open(drawn).convert("RGB").quantize()
    image.save(small, "PNG", optimize=True)
    return small.getvalue()


def _write_png(figure: Figure, path: str | Path) -> None:
    with write_atomically(path, "wb") as file:
        file.write(_to_png(figure, dpi=120))
