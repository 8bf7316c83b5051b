"""From a captioner's log-probabilities to confidences that come true.

A confidence is a probability in [0, 1]: how often such a token is right. It is
fitted on tokens of captions by people, masked and guessed by the model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LOG_ODDS_LIMIT = 16.0  # a probability within 1.1e-7 of 0 or 1, as float32
_TEMPERATURES = (0.05, 20.0)
_STEPS = 100
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What turns log-probabilities into confidences.

    A captioner keeps the log-probability log p of the token that it chose, not
    the logits of all. So the two cases "this token" and "any other" are scaled:

        z = log p - log(1 - p),    p' = sigmoid(z / temperature + offset).

    A temperature above 1 draws confidences together; the offset lifts or lowers
    all of them, as a model needs whose loss smooths the labels. Temperature
    alone leaves a confidence of one half where it is.

    Attributes:
        temperature: Above 0.
        offset: In log-odds.

    Raises:
        ValueError: The temperature is not above 0.

    Reference:
        Platt 1999, "Probabilistic outputs for support vector machines"; Guo et
        al. 2017, https://arxiv.org/abs/1706.04599, section 4.
    """

    temperature: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Checks the temperature."""
        if not self.temperature > 0:
            raise ValueError(
                f"`temperature` must be above 0. Received: {self.temperature}"
            )

    def apply(self, log_probs: ArrayLike) -> _Floats:
        """Scales log-probabilities.

        Args:
            log_probs: float, any shape, in nats, at most 0.

        Returns:
            float64, the same shape: log p'.

        Raises:
            ValueError: A value is no log-probability.
        """
        odds = _log_odds(np.asarray(log_probs, np.float64))
        return _log_sigmoid(odds / self.temperature + self.offset)


# === Guesses at masked tokens ===


def fit_calibration(log_probs: ArrayLike, correct: ArrayLike) -> Calibration:
    """Fits temperature and offset to guesses that were right or wrong.

    They minimise the mean of -log p' over the right tokens and -log(1 - p')
    over the wrong ones, where right counts as (n + 1) / (n + 2) and wrong as 1
    / (m + 2), n and m being their numbers: Platt's targets, which keep both
    finite when all are right. The loss is convex; Newton's method finds its
    least.

    Args:
        log_probs: float, (tokens,), in nats, at most 0.
        correct: bool, (tokens,).

    Returns:
        The calibration. Its temperature is in [0.05, 20], the upper bound where
        confidence tells nothing, or the wrong thing.

    Raises:
        ValueError: There is no token, the shapes differ or a value is no
            log-probability.
    """
    values = np.asarray(log_probs, np.float64)
    hits = np.asarray(correct).astype(bool)
    if values.ndim != 1 or values.shape != hits.shape or not values.size:
        raise ValueError(
            "`log_probs` and `correct` must both have the shape (tokens,), of "
            f"at least one token. Received: {values.shape} and {hits.shape}."
        )
    odds, right = _log_odds(values), hits.sum()
    targets = np.where(
        hits, (right + 1) / (right + 2), 1 / (hits.size - right + 2)
    )
    scale, offset = _fit_line(odds, targets)
    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    if not low <= scale <= high:
        scale = float(np.clip(scale, low, high))
        offset = _fit_line(odds, targets, scale=scale)[1]
    return Calibration(1 / scale, offset)


def _fit_line(
    odds: _Floats, targets: _Floats, *, scale: float | None = None
) -> tuple[float, float]:
    """Logistic regression by Newton's method, with or without a given scale."""
    columns = np.stack([odds, np.ones_like(odds)])  # (2, tokens)
    free = np.array([scale is None, True])
    line = np.array([1.0 if scale is None else scale, 0.0])
    loss = _mean_loss(line @ columns, targets)
    for _ in range(_STEPS):
        predicted = np.exp(_log_sigmoid(line @ columns))
        slope = columns[free] @ (predicted - targets) / odds.size
        weighted = columns[free] * (predicted * (1 - predicted))
        curvature = weighted @ columns[free].T / odds.size
        # The small constant serves tokens of one and the same probability.
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(slope)), slope)
        change = np.zeros(2)
        change[free] = step
        # Far from the least a whole step may climb.
        while True:
            new = _mean_loss((line - change) @ columns, targets)
            if new <= loss or np.abs(change).max() < 1e-9:
                break
            change /= 2
        line, gained, loss = line - change, loss - new, min(new, loss)
        if gained < 1e-14:
            break
    return float(line[0]), float(line[1])


def _mean_loss(odds: _Floats, targets: _Floats) -> float:
    right, wrong = _log_sigmoid(odds), _log_sigmoid(-odds)
    return -float(np.mean(targets * right + (1 - targets) * wrong))


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
