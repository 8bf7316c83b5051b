"""Charts of an evaluation's page, as PNG files in memory.

Drawn on their own canvas, as all figures of the library: without a display
and without `matplotlib.pyplot`. They take the width of a phone.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bmt_keras.evaluation.reliability import ReliabilityBin, calibration_error

if TYPE_CHECKING:
    from bmt_keras.evaluation.model_metrics import PassesPoint

_DPI = 160
_COLORS = ("#1f5fa8", "#d9661f", "#3b8a4d", "#7a4fa3")


def draw_lengths(lengths: Mapping[str, Sequence[int]]) -> bytes:
    """Draws how long captions are, side by side.

    Args:
        lengths: Words of each caption, by who wrote them; at least one each.

    Returns:
        The PNG file.
    """
    figure, axes = _make_figure(3.0)
    width = 0.8 / len(lengths)
    for place, (name, counts) in enumerate(lengths.items()):
        words, captions = np.unique(list(counts), return_counts=True)
        axes.bar(
            words - 0.4 + width * (place + 0.5),
            captions / captions.sum(),
            width,
            color=_COLORS[place % len(_COLORS)],
            label=name,
        )
    axes.set_xlabel("words in the caption")
    axes.set_ylabel("share of captions")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(axes)
    return _to_png(figure)


def draw_reliability(
    calibration: Mapping[str, Sequence[ReliabilityBin]],
) -> bytes:
    """Draws accuracy against confidence, with each set's calibration error.

    Perfect confidence lies on the diagonal. The area of a dot is the share of
    its guesses; empty bins have none.

    Args:
        calibration: Bins of `reliability_bins` by name; not all are empty.

    Returns:
        The PNG file.

    Reference:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599, figure 1.
    """
    figure, axes = _make_figure(4.6)
    axes.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1)
    for place, (name, bins) in enumerate(calibration.items()):
        filled = [each for each in bins if each.count]
        x = [each.confidence for each in filled]
        y = [each.accuracy for each in filled]
        counts = np.array([each.count for each in filled])
        color = _COLORS[place % len(_COLORS)]
        label = f"{name} (ECE {calibration_error(bins):.3f})"
        axes.plot(x, y, color=color, linewidth=1.4, label=label)
        axes.scatter(x, y, 12 + 150 * counts / counts.sum(), color=color)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence")
    axes.set_ylabel("share correct")
    _add_legend(axes)
    return _to_png(figure)


def draw_passes(points: "Sequence[PassesPoint]") -> bytes:
    """Draws CIDEr-D and time against the number of decoding passes.

    Args:
        points: At least one, in any order.

    Returns:
        The PNG file.
    """
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    passes, cider_d, seconds = zip(*sorted(points), strict=True)
    for place, (axes, values, label) in enumerate(
        ((upper, cider_d, "CIDEr-D"), (lower, seconds, "seconds"))
    ):
        axes.plot(passes, values, "o-", color=_COLORS[place], linewidth=1.6)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0, top=max(*values, 0.01) * 1.1)
        _clean(axes)
    lower.set_xlabel("passes")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _to_png(figure)


def _make_figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, height), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
    return figure, axes


def _clean(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(axes: Axes) -> None:
    for text in axes.legend(frameon=False, fontsize=9).get_texts():
        # A name with two dollar signs is no formula.
        text.set_parse_math(False)


def _to_png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()
