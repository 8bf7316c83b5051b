"""Whether a captioner's confidence is as high as its share of hits.

A confidence is a probability in [0, 1]. What counts as correct is the caller's:
the masked token guessed, the caption true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ReliabilityBin:
    """Guesses of similar confidence.

    Attributes:
        low: Lower edge, excluded but for the first bin.
        high: Upper edge, included.
        count: Number of guesses.
        confidence: Their mean confidence; the bin's middle if there is none.
        accuracy: Share of them that is correct, 0 if there is none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability_bins(
    confidences: ArrayLike, correct: ArrayLike, *, num_bins: int = 10
) -> list[ReliabilityBin]:
    """Sorts guesses into bins of equal width by confidence.

    Args:
        confidences: float, (guesses,), in [0, 1].
        correct: bool, (guesses,).
        num_bins: Number of bins, M: bin m holds ((m - 1) / M, m / M], and the
            first one 0 as well.

    Returns:
        The bins from low to high, empty ones among them.

    Raises:
        ValueError: If `num_bins` is below 1, the shapes differ or a confidence
            is no probability.

    Reference:
        Guo et al. 2017, "On Calibration of Modern Neural Networks",
        https://arxiv.org/abs/1706.04599, section 2.
    """
    if num_bins < 1:
        raise ValueError(f"`num_bins` must be at least 1. Received: {num_bins}")
    values = np.asarray(confidences, np.float64)
    hits = np.asarray(correct).astype(bool)
    if values.ndim != 1 or values.shape != hits.shape:
        raise ValueError(
            "`confidences` and `correct` must both have the shape (guesses,). "
            f"Received: {values.shape} and {hits.shape}"
        )
    # Not `any` outside: NaN is on no side of a bound.
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            "`confidences` must be in [0, 1]. Received: values from "
            f"{values.min()} to {values.max()}"
        )
    edges = np.arange(num_bins + 1) / num_bins
    places = np.maximum(np.searchsorted(edges, values, side="left") - 1, 0)
    bins = []
    for place, (low, high) in enumerate(pairwise(edges.tolist())):
        chosen = places == place
        count = int(chosen.sum())
        # The mean of no number is none.
        confidence = values[chosen].mean() if count else (low + high) / 2
        accuracy = hits[chosen].mean() if count else 0
        bins.append(
            ReliabilityBin(low, high, count, float(confidence), float(accuracy))
        )
    return bins


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Returns the expected calibration error of bins, in [0, 1].

    ECE = sum_m n_m / n |accuracy_m - confidence_m|; 0 is perfect.

    Raises:
        ValueError: If the bins hold no guess.

    Reference:
        Naeini et al. 2015; Guo et al. 2017, equation 3.
    """
    total = sum(each.count for each in bins)
    if not total:
        raise ValueError("`bins` must hold a guess. Received: none")
    gaps = (each.count * abs(each.accuracy - each.confidence) for each in bins)
    return sum(gaps) / total
