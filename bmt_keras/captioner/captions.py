"""Captions and scores, made of what the graph gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmt_keras.captioner.calibration import Calibration
from bmt_keras.data.tokenizer import CaptionTokenizer


@dataclass(frozen=True)
class Caption:
    """A written caption.

    Attributes:
        text: The caption.
        score: Mean log-probability per written token, in nats, at most 0.
        tokens: The caption's tokens.
        token_scores: Log-probability of each token when it was written; 0 for
            a token that a template gave.
        confidences: Of each token, in [0, 1]: `token_scores` calibrated on
            the validation images.
        confidence: Of the caption, in [0, 1], their geometric mean.
        token_ids: Their ids between `[CLS]` and `[SEP]`, padded to the
            sequence length.
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


def to_captions(
    written: Mapping[str, np.ndarray],
    tokenizer: CaptionTokenizer,
    calibration: Calibration,
) -> list[list[Caption]]:
    """The captions of each image, of what `CaptionGraph.write_captions` gives.

    The best of an image comes first.
    """

    def to_caption(
        text: bytes, score: Any, token_ids: np.ndarray, values: np.ndarray
    ) -> Caption:
        is_token = ~np.isin(token_ids, tokenizer.special_token_ids)
        values = values[is_token]  # (tokens,)
        # A log-probability may be rounded to more than 0.
        calibrated = calibration.apply(np.minimum(values, 0.0))
        confidence = np.exp(calibrated.mean()) if calibrated.size else 1.0
        return Caption(
            text=text.decode(),
            score=float(score),
            tokens=tuple(tokenizer.vocabulary[i] for i in token_ids[is_token]),
            token_scores=tuple(values.tolist()),
            confidences=tuple(np.exp(calibrated).tolist()),
            confidence=float(confidence),
            token_ids=tuple(token_ids.tolist()),
        )

    names = ("caption", "score", "token_ids", "token_scores")
    # Each array is (images, num_captions, ...).
    return [
        [to_caption(*values) for values in zip(*candidates, strict=True)]
        for candidates in zip(*(written[name] for name in names), strict=True)
    ]


def to_scores(
    texts: Sequence[str],
    token_ids: np.ndarray,
    token_scores: Sequence[np.ndarray],
    tokenizer: CaptionTokenizer,
) -> list[Score]:
    """Scores of texts, of what `CaptionGraph.score_captions` gives."""
    # A special token in a caption, such as an unknown one, has a score too.
    frame = (
        tokenizer.pad_token_id,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
    )
    scores = []
    for text, ids, values in zip(texts, token_ids, token_scores, strict=True):
        is_token = ~np.isin(ids, frame)
        values = values[is_token]
        scores.append(
            Score(
                text=text,
                total=float(values.sum()),
                mean=float(values.mean()),
                tokens=tuple(tokenizer.vocabulary[i] for i in ids[is_token]),
                token_scores=tuple(values.tolist()),
            )
        )
    return scores
