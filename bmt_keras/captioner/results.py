"""What decoding gives back, in plain Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bmt_keras.evaluation.confidence import Calibration

if TYPE_CHECKING:
    from bmt_keras.data.tokenizer import CaptionTokenizer


@dataclass(frozen=True)
class Caption:
    """A written caption.

    Attributes:
        text: The caption.
        score: Mean log-probability a written token, in nats, at most 0.
        tokens: The caption's tokens.
        token_scores: Log-probability of each token when it was written; 0 for
            a token that a template gave.
        confidences: Of each token, in [0, 1]: `token_scores` calibrated on
            the validation photos.
        confidence: Of the caption, in [0, 1], their geometric mean.
        token_ids: (sequence_length,) their ids between `[CLS]` and `[SEP]`, padded.
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
    """How likely a model finds a caption of a photo.

    Attributes:
        text: The caption.
        total: Pseudo-log-likelihood, in nats: the sum over the tokens.
        mean: Its mean a token.
        tokens: The caption's tokens.
        token_scores: Log-probability of each token given all others.
    """

    text: str
    total: float
    mean: float
    tokens: tuple[str, ...]
    token_scores: tuple[float, ...]


def to_captions(
    written: Mapping[str, np.ndarray],
    tokenizer: "CaptionTokenizer",
    calibration: Calibration,
) -> list[Caption]:
    """Turns the arrays of a caption graph into captions, a row each."""
    special = tokenizer.special_token_ids
    captions = []
    for text, score, ids, scores in zip(
        written["caption"],
        written["score"],
        written["token_ids"],
        written["token_scores"],
        strict=True,
    ):
        words = ~np.isin(ids, special)
        # A log-probability may be rounded to more than 0.
        calibrated = calibration.apply(np.minimum(scores[words], 0.0))
        captions.append(
            Caption(
                text=text.decode(),
                score=float(score),
                tokens=tuple(tokenizer.vocabulary[i] for i in ids[words]),
                token_scores=tuple(scores[words].tolist()),
                confidences=tuple(np.exp(calibrated).tolist()),
                confidence=float(
                    np.exp(calibrated.sum() / max(words.sum(), 1))
                ),
                token_ids=tuple(ids.tolist()),
            )
        )
    return captions


def to_scores(
    texts: Sequence[str],
    token_ids: np.ndarray,
    token_scores: np.ndarray,
    tokenizer: "CaptionTokenizer",
) -> list[Score]:
    """Turns the words' log-probabilities into scores, a row each."""
    frame = (
        tokenizer.pad_token_id,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
    )
    scores = []
    for text, ids, values in zip(texts, token_ids, token_scores, strict=True):
        words = ~np.isin(ids, frame)
        scores.append(
            Score(
                text=text,
                total=float(values[words].sum()),
                mean=float(values[words].mean()),
                tokens=tuple(tokenizer.vocabulary[i] for i in ids[words]),
                token_scores=tuple(values[words].tolist()),
            )
        )
    return scores
