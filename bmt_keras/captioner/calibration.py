"""Fits a captioner's confidences to its guesses at masked tokens.

The guesses are at captions by people, of images of no training.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bmt_keras.captioner.captioner import Captioner
from bmt_keras.captioner.captions import (
    Calibration,
    Floats,
    log_odds,
    log_sigmoid,
)
from bmt_keras.data.captions import CaptionedImage

_TEMPERATURES = (0.05, 20.0)
_STEPS = 100


def calibrate(
    captioner: Captioner,
    images: Sequence[CaptionedImage],
    features: np.ndarray,
) -> None:
    """Sets a captioner's `calibration`, fitted on images of no training.

    A caption by people of each image is read. `features`, (images, ...), are
    those of `Captioner.read_features`.
    """
    # Others than those that evaluation looks at.
    captions = one_caption_each(images, first=1)
    guesses = guess_masked_tokens(captioner, features, captions, seed=1)
    captioner.calibration = fit_calibration(guesses.log_probs, guesses.correct)


# === Guesses at masked tokens ===


class MaskedGuesses(NamedTuple):
    """A captioner's guesses at masked tokens: arrays, (tokens,)."""

    predictions: np.ndarray  # the likeliest tokens
    labels: np.ndarray  # the masked ones
    log_probs: np.ndarray  # of the predictions, in nats, at most 0

    @property
    def correct(self) -> np.ndarray:
        """Which predictions are right."""
        return self.predictions == self.labels


def guess_masked_tokens(
    captioner: Captioner,
    features: np.ndarray,
    captions: Sequence[str],
    *,
    share: float = 0.15,
    seed: int = 0,
) -> MaskedGuesses:
    """Masks a share of the tokens of captions and lets the model guess them.

    Each row of `features`, (captions, ...), of `Captioner.read_features`, has a
    caption by people. At least one of its tokens is masked.
    """
    tokenizer = captioner.tokenizer
    token_ids = captioner.encode(captions)
    is_token = ~np.isin(token_ids, tokenizer.special_token_ids)
    counts = np.maximum(np.rint(share * is_token.sum(axis=1)), 1)
    rng = np.random.default_rng(seed)
    # The rank of a random number per token; others come behind the tokens.
    order = np.where(is_token, rng.random(is_token.shape), 2.0)
    ranks = order.argsort(axis=1).argsort(axis=1)
    masked = is_token & (ranks < counts[:, None])  # (captions, length)
    shown = np.where(masked, tokenizer.mask_token_id, token_ids)
    predictions, log_probs = captioner.guess_tokens(features, shown)
    # A log-probability may be rounded to more than 0.
    log_probs = np.minimum(log_probs[masked].astype(float), 0.0)  # (tokens,)
    return MaskedGuesses(predictions[masked], token_ids[masked], log_probs)


def one_caption_each(
    images: Sequence[CaptionedImage], first: int = 0
) -> list[str]:
    """A caption of each image: its number `first`, `first` + 1, … in turn.

    Some data sets sort an image's captions, the longest first: all first ones,
    or all last ones, would be captions of one kind.
    """
    return [
        image.captions[(first + number) % len(image.captions)]
        for number, image in enumerate(images)
    ]


# === The fit ===


def fit_calibration(log_probs: ArrayLike, correct: ArrayLike) -> Calibration:
    """Fits temperature and offset to guesses that were right or wrong.

    They minimise the mean of -log p' over the right tokens and -log(1 - p')
    over the wrong ones, where right counts as (n + 1) / (n + 2) and wrong as 1
    / (m + 2), n and m being their numbers: Platt's targets, which keep both
    finite when all are right. Newton's method finds the least of a convex loss.

    Args:
        log_probs: float, (tokens,), in nats, at most 0; at least one.
        correct: bool, (tokens,).

    Returns:
        The calibration. Its temperature is in [0.05, 20], the upper bound where
        confidence tells nothing, or the wrong thing.

    Raises:
        ValueError: A value is no log-probability.
    """
    odds, hits = log_odds(log_probs), np.asarray(correct).astype(bool)
    right = hits.sum()
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
    odds: Floats, targets: Floats, *, scale: float | None = None
) -> tuple[float, float]:
    """Logistic regression by Newton's method, with or without a given scale."""
    columns = np.stack([odds, np.ones_like(odds)])  # (2, tokens)
    free = np.array([scale is None, True])
    line = np.array([1.0 if scale is None else scale, 0.0])
    loss = _mean_loss(line @ columns, targets)
    for _ in range(_STEPS):
        predicted = np.exp(log_sigmoid(line @ columns))
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


def _mean_loss(odds: Floats, targets: Floats) -> float:
    right, wrong = log_sigmoid(odds), log_sigmoid(-odds)
    return -float(np.mean(targets * right + (1 - targets) * wrong))
