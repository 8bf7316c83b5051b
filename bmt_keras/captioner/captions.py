"""What a captioner gives: captions, scores and confidences that come true.

A confidence is a probability in [0, 1]: how often such a token is right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bmt_keras.data.tokenizer import CaptionTokenizer

_LOG_ODDS_LIMIT = 16.0  # a probability within 1.1e-7 of 0 or 1, as float32
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Caption:
    """A written caption.

    Attributes:
        text: The caption.
        score: Mean log-probability per written token, in nats, at most 0.
        tokens: The caption's tokens.
        token_scores: Log-probability of each when written; 0 if it was given.
        confidences: `token_scores` calibrated on validation images, in [0, 1].
        confidence: Of the caption, in [0, 1], their geometric mean.
        token_ids: `[CLS]`, their ids, `[SEP]`, padded to the sequence length.
    """

    text: str
    score: float
    tokens: tuple[str, ...]
    token_scores: tuple[float, ...]
    confidences: tuple[float, ...]
    confidence: float
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """How likely the model finds a caption of an image.

    Attributes:
        text: The caption.
        total: Pseudo-log-likelihood, in nats: the sum over the tokens.
        mean: The mean per token.
        tokens: The caption's tokens.
        token_scores: Log-probability of each token given all others.
    """

    text: str
    total: float
    mean: float
    tokens: tuple[str, ...]
    token_scores: tuple[float, ...]


# === Confidences ===


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

    def apply(self, log_probs: ArrayLike) -> Floats:
        """Scales log-probabilities.

        Args:
            log_probs: float, any shape, in nats, at most 0.

        Returns:
            float64, the same shape: log p'.

        Raises:
            ValueError: A value is no log-probability.
        """
        odds = log_odds(log_probs)
        return log_sigmoid(odds / self.temperature + self.offset)


def log_odds(log_probs: ArrayLike) -> Floats:
    """From log p to log p - log(1 - p), within bounds."""
    log_probs = np.asarray(log_probs, np.float64)
    if not np.all(log_probs <= 0):
        raise ValueError(
            "`log_probs` must be at most 0. Received: up to "
            f"{np.max(log_probs)}"
        )
    # expm1 keeps 1 - p exact where p is nearly 1; p of 0 or 1 has no odds.
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = log_probs - np.log(-np.expm1(log_probs))
    return np.clip(odds, -_LOG_ODDS_LIMIT, _LOG_ODDS_LIMIT)


def log_sigmoid(values: Floats) -> Floats:
    """From log-odds back to log p."""
    return -np.logaddexp(0.0, -values)


# === From a graph's arrays ===


def to_captions(
    written: Mapping[str, np.ndarray],
    tokenizer: CaptionTokenizer,
    calibration: Calibration,
) -> list[list[Caption]]:
    """The captions of each image, of what `mask_predict` gives, best first."""

    def to_caption(
        score: Any, token_ids: np.ndarray, values: np.ndarray
    ) -> Caption:
        tokens, values = _read_tokens(token_ids, values, tokenizer)
        # A log-probability may be rounded to more than 0.
        calibrated = calibration.apply(np.minimum(values, 0.0))
        confidence = np.exp(calibrated.mean()) if calibrated.size else 1.0
        return Caption(
            text=tokenizer.decode(token_ids.tolist()),
            score=float(score),
            tokens=tokens,
            token_scores=tuple(values.tolist()),
            confidences=tuple(np.exp(calibrated).tolist()),
            confidence=float(confidence),
            token_ids=tuple(token_ids.tolist()),
        )

    names = ("score", "token_ids", "token_scores")
    # Each array is (images, num_captions, ...).
    return [
        [to_caption(*values) for values in zip(*candidates, strict=True)]
        for candidates in zip(*(written[name] for name in names), strict=True)
    ]


def to_score(
    text: str,
    token_ids: np.ndarray,
    values: np.ndarray,
    tokenizer: CaptionTokenizer,
) -> Score:
    """The score of a text, of what `score_tokens` gives."""
    tokens, values = _read_tokens(token_ids, values, tokenizer)
    return Score(
        text=text,
        total=float(values.sum()),
        mean=float(values.mean()),
        tokens=tokens,
        token_scores=tuple(values.tolist()),
    )


def _read_tokens(
    token_ids: np.ndarray, values: np.ndarray, tokenizer: CaptionTokenizer
) -> tuple[tuple[str, ...], np.ndarray]:
    """The tokens within the frame, and their values."""
    # A special token in a caption, such as an unknown one, has a score too.
    frame = (
        tokenizer.pad_token_id,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
    )
    is_token = ~np.isin(token_ids, frame)
    tokens = tuple(tokenizer.vocabulary[i] for i in token_ids[is_token])
    return tokens, values[is_token]
