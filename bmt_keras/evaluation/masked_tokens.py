"""Accuracy of guesses at masked tokens."""

import numpy as np
from numpy.typing import ArrayLike


def masked_accuracy(
    predictions: ArrayLike, labels: ArrayLike, *, masked: ArrayLike
) -> float:
    """Returns the share of masked tokens, in [0, 1], that were guessed.

    Args:
        predictions: int, any shape: the guessed token ids.
        labels: int, the same shape: the true token ids.
        masked: bool, the same shape: where a token was masked. Others, padding
            among them, do not count.

    Raises:
        ValueError: If the shapes differ or no token was masked.
    """
    guesses, truth = np.asarray(predictions), np.asarray(labels)
    counted = np.asarray(masked).astype(bool)
    if not guesses.shape == truth.shape == counted.shape:
        raise ValueError(
            "`predictions`, `labels` and `masked` must have one shape. "
            f"Received: {guesses.shape}, {truth.shape} and {counted.shape}"
        )
    if not counted.any():
        raise ValueError("`masked` must hold a masked token. Received: none")
    return float(np.mean((guesses == truth)[counted]))
