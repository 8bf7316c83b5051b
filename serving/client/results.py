"""What a server answers for a photo, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from bmt_keras import contract


class Result(Protocol):
    """A row of an answer."""

    OUTPUTS: ClassVar[tuple[str, ...]]

    @property
    def error(self) -> str:
        """Why the row has no answer; empty where it has one."""
        ...

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Reads a row: a value or nested lists by output name."""
        ...

    @classmethod
    def from_error(cls, error: str) -> Self:
        """Makes the result of a photo that has none."""
        ...


@dataclass(frozen=True)
class CaptionResult:
    """The caption of a photo.

    Args:
        caption: str.
        score: float. Mean log-probability a token, in nats.
        token_scores: floats, one a token; 0 at padding.
        token_ids: ints, one a token, padding included.
        error: str. Why the photo has no caption; empty where it has one.
    """

    OUTPUTS: ClassVar[tuple[str, ...]] = (
        contract.CAPTION,
        contract.SCORE,
        contract.TOKEN_SCORES,
        contract.TOKEN_IDS,
        contract.ERROR,
    )

    caption: str
    score: float
    token_scores: tuple[float, ...]
    token_ids: tuple[int, ...]
    error: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Reads a row of `serving_default` or `caption_with_length`."""
        return cls(
            caption=_decode(row[contract.CAPTION]),
            score=row[contract.SCORE],
            token_scores=tuple(row[contract.TOKEN_SCORES]),
            token_ids=tuple(row[contract.TOKEN_IDS]),
            error=_decode(row[contract.ERROR]),
        )

    @classmethod
    def from_error(cls, error: str) -> Self:
        """Makes the result of a photo without a caption."""
        return cls("", 0.0, (), (), error)


@dataclass(frozen=True)
class Candidate:
    """A word for a mask.

    Args:
        text: str.
        probability: float in [0, 1].
    """

    text: str
    probability: float


@dataclass(frozen=True)
class FilledText:
    """A text whose masks are filled.

    Args:
        text: str. The text without masks.
        candidates: For each mask, from left to right, its candidates, the
            likeliest first.
        error: str. Why the text is not filled; empty where it is.
    """

    OUTPUTS: ClassVar[tuple[str, ...]] = (
        contract.TEXT,
        contract.CANDIDATES,
        contract.CANDIDATE_PROBABILITIES,
        contract.ERROR,
    )

    text: str
    candidates: tuple[tuple[Candidate, ...], ...]
    error: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Reads a row of `fill_mask`, without its padding."""
        masks = (
            _pair(texts, probabilities)
            for texts, probabilities in zip(
                row[contract.CANDIDATES],
                row[contract.CANDIDATE_PROBABILITIES],
                strict=True,
            )
        )
        return cls(
            text=_decode(row[contract.TEXT]),
            candidates=tuple(candidates for candidates in masks if candidates),
            error=_decode(row[contract.ERROR]),
        )

    @classmethod
    def from_error(cls, error: str) -> Self:
        """Makes the result of a text that is not filled."""
        return cls("", (), error)


@dataclass(frozen=True)
class TextScore:
    """How well a text fits its photo.

    Args:
        score: float. Mean log-likelihood a token, in nats.
        total_score: float. Log-likelihood of all tokens, in nats.
        error: str. Why there is no score; empty where there is one.
    """

    OUTPUTS: ClassVar[tuple[str, ...]] = (
        contract.SCORE,
        contract.TOTAL_SCORE,
        contract.ERROR,
    )

    score: float
    total_score: float
    error: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Reads a row of `score_caption`."""
        return cls(
            score=row[contract.SCORE],
            total_score=row[contract.TOTAL_SCORE],
            error=_decode(row[contract.ERROR]),
        )

    @classmethod
    def from_error(cls, error: str) -> Self:
        """Makes the result of a text without a score."""
        return cls(0.0, 0.0, error)


def _pair(
    texts: list[bytes], probabilities: list[float]
) -> tuple[Candidate, ...]:
    # A row is padded to the widest of its batch, with nothing likely.
    return tuple(
        Candidate(_decode(text), probability)
        for text, probability in zip(texts, probabilities, strict=True)
        if probability > 0.0
    )


def _decode(text: bytes) -> str:
    return text.decode(errors="replace")
