"""Whether a captioner's confidence is as high as its share of hits.

A confidence is a probability in [0, 1]. What counts as correct is the caller's:
the masked token guessed, the caption true.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_NUM_BINS = 10


class ReliabilityBin(NamedTuple):
    """Guesses of similar confidence."""

    num_guesses: int
    confidence: float  # their mean
    accuracy: float  # share of them that is correct


def reliability_bins(
    confidences: ArrayLike, correct: ArrayLike
) -> list[ReliabilityBin]:
    """Sorts guesses into ten bins of equal width by confidence.

    Args:
        confidences: float, (guesses,), in [0, 1].
        correct: bool, (guesses,).

    Returns:
        Those that are not empty, in order: [0, 0.1], (0.1, 0.2] and so on.

    Reference:
        Guo et al. 2017, "On Calibration of Modern Neural Networks",
        https://arxiv.org/abs/1706.04599, section 2.
    """
    values = np.asarray(confidences, np.float64)
    hits = np.asarray(correct, bool)
    edges = np.arange(_NUM_BINS + 1) / _NUM_BINS
    places = np.maximum(np.searchsorted(edges, values, side="left") - 1, 0)
    return [
        ReliabilityBin(
            int(chosen.sum()),
            float(values[chosen].mean()),
            float(hits[chosen].mean()),
        )
        for chosen in (places == place for place in np.unique(places))
    ]


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Returns the expected calibration error of bins, in [0, 1].

    ECE = sum_m n_m / n |accuracy_m - confidence_m|; 0 is perfect.

    Reference:
        Naeini et al. 2015; Guo et al. 2017, equation 3.
    """
    gaps = (n * abs(accuracy - mean) for n, mean, accuracy in bins)
    return sum(gaps) / sum(each.num_guesses for each in bins)
