"""Whether a captioner's confidence is as high as its share of hits.

A confidence is a probability in [0, 1]. A token's is the exponential of its
log-probability; a caption's is that of its score, the mean log-probability a
token, which is the geometric mean of its tokens' confidences. What counts as
correct is the caller's: the masked token guessed, the caption true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LOG_ODDS_LIMIT = 16.0  # a probability within 1.1e-7 of 0 or 1, as float32
_BOUNDS = (0.05, 20.0)  # of the temperature
_HALVINGS = 60

_Floats = NDArray[np.float64]


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
    values, hits = _check_pairs("confidences", confidences, correct)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            "`confidences` must be in [0, 1]. Received: values from "
            f"{values.min()} to {values.max()}"
        )
    edges = np.arange(num_bins + 1) / num_bins
    places = np.maximum(np.searchsorted(edges, values, side="left") - 1, 0)
    bins = []
    for place, (low, high) in enumerate(pairwise(edges)):
        chosen = places == place
        count = int(chosen.sum())
        bins.append(
            ReliabilityBin(
                float(low),
                float(high),
                count,
                float(values[chosen].mean() if count else (low + high) / 2),
                float(hits[chosen].mean() if count else 0),
            )
        )
    return bins


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Returns the expected calibration error of bins, in [0, 1].

    ECE = sum_m n_m / n |accuracy_m - confidence_m|; 0 is perfect.

    Args:
        bins: What `reliability_bins` returned.

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


def expected_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, *, num_bins: int = 10
) -> float:
    """Returns the expected calibration error of guesses, in [0, 1].

    Args:
        confidences: float, (guesses,), in [0, 1].
        correct: bool, (guesses,).
        num_bins: Number of bins of equal width.

    Raises:
        ValueError: As `reliability_bins`, or if there is no guess.

    Reference:
        Guo et al. 2017, equation 3.
    """
    return calibration_error(
        reliability_bins(confidences, correct, num_bins=num_bins)
    )


def fit_temperature(log_probs: ArrayLike, correct: ArrayLike) -> float:
    """Fits the temperature that makes confidences as high as they should be.

    A captioner keeps the log-probability log p of the token that it chose, not
    the logits of all. So the two cases "this token" and "any other" are
    scaled, as in Platt's method with one parameter and no offset:

        z = log p - log(1 - p),    p' = sigmoid(z / T),

    and T minimises the mean of -log p' over the right tokens and -log(1 - p')
    over the wrong ones. With a vocabulary of two this is the temperature of
    Guo et al.; with more, the other tokens count as one. T > 1 lowers
    confidences above one half and raises those below: no T lifts a confidence
    over one half.

    The loss is convex in 1 / T, and its slope's zero is found by bisection.

    Args:
        log_probs: float, (tokens,), in nats, at most 0.
        correct: bool, (tokens,).

    Returns:
        T in [0.05, 20]; the upper bound if confidence tells nothing.

    Raises:
        ValueError: If there is no token, the shapes differ or a value is no
            log-probability.

    Reference:
        Guo et al. 2017, section 4.2; Platt 1999.
    """
    odds, hits = _check_pairs("log_probs", log_probs, correct)
    if not odds.size:
        raise ValueError("`log_probs` must hold a token. Received: none")
    odds = _log_odds(odds)
    low, high = 1 / _BOUNDS[1], 1 / _BOUNDS[0]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = np.mean((np.exp(_log_sigmoid(middle * odds)) - hits) * odds)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(2 / (low + high))


def apply_temperature(log_probs: ArrayLike, temperature: float) -> _Floats:
    """Scales log-probabilities by a fitted temperature.

    Args:
        log_probs: float, any shape, in nats, at most 0.
        temperature: T of `fit_temperature`, above 0.

    Returns:
        float64, the same shape: log sigmoid(z / T), see `fit_temperature`.

    Raises:
        ValueError: If T is not above 0 or a value is no log-probability.
    """
    if not temperature > 0:
        raise ValueError(
            f"`temperature` must be above 0. Received: {temperature}"
        )
    odds = _log_odds(np.asarray(log_probs, np.float64))
    return _log_sigmoid(odds / temperature)


def _log_odds(log_probs: _Floats) -> _Floats:
    if not np.all(log_probs <= 0):
        raise ValueError(
            "`log_probs` must be at most 0. Received: up to "
            f"{np.max(log_probs)}"
        )
    # expm1 keeps 1 - p exact where p is nearly 1; p of 0 or 1 has no odds.
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = log_probs - np.log(-np.expm1(log_probs))
    return np.clip(odds, -_LOG_ODDS_LIMIT, _LOG_ODDS_LIMIT)


def _log_sigmoid(values: _Floats) -> _Floats:
    return -np.logaddexp(0.0, -values)


def _check_pairs(
    name: str, values: ArrayLike, correct: ArrayLike
) -> tuple[_Floats, _Floats]:
    numbers = np.asarray(values, np.float64)
    hits = np.asarray(correct).astype(bool).astype(np.float64)
    if numbers.ndim != 1 or numbers.shape != hits.shape:
        raise ValueError(
            f"`{name}` and `correct` must both have the shape (guesses,). "
            f"Received: {numbers.shape} and {hits.shape}"
        )
    return numbers, hits
