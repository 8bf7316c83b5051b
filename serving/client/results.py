"""What a server answers about an image, as plain values."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from bmt_keras import contract

from ..errors import ServingError


@dataclass(frozen=True)
class CaptionResult:
    """The caption of an image.

    Args:
        caption: str.
        score: float. Mean log-probability per token, in nats.
        token_scores: floats, one per token; 0 at padding.
        token_ids: ints, one per token, padding included.
        error: str. Why the image has no caption; empty where it has one.
    """

    OUTPUTS: ClassVar[tuple[str, ...]] = (
        contract.CAPTION,
        contract.SCORE,
        contract.TOKEN_SCORES,
        contract.TOKEN_IDS,
        contract.ERROR,
    )

    caption: str = ""
    score: float = 0.0
    token_scores: tuple[float, ...] = ()
    token_ids: tuple[int, ...] = ()
    error: str = ""

    @classmethod
    def from_outputs(cls, outputs: dict[str, Any]) -> Self:
        """Reads `serving_default` or `caption_with_length`."""
        return cls(**outputs)  # the fields have the outputs' names


@dataclass(frozen=True)
class Candidate:
    """A token for a mask.

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

    text: str = ""
    candidates: tuple[tuple[Candidate, ...], ...] = ()
    error: str = ""

    @classmethod
    def from_outputs(cls, outputs: dict[str, Any]) -> Self:
        """Reads `fill_mask`, without its padding."""
        # Padding, behind the last mask, has no likely candidate.
        masks = [
            tuple(
                Candidate(text, probability)
                for text, probability in zip(*pair, strict=True)
                if probability > 0.0
            )
            for pair in zip(
                outputs[contract.CANDIDATES],
                outputs[contract.CANDIDATE_PROBABILITIES],
                strict=True,
            )
        ]
        return cls(
            text=outputs[contract.TEXT],
            candidates=tuple(filter(None, masks)),
            error=outputs[contract.ERROR],
        )


@dataclass(frozen=True)
class TextScore:
    """How likely a text is for its image.

    Args:
        score: float. Mean log-likelihood per token, in nats.
        total_score: float. Log-likelihood of all tokens, in nats.
        error: str. Why there is no score; empty where there is one.
    """

    OUTPUTS: ClassVar[tuple[str, ...]] = (
        contract.SCORE,
        contract.TOTAL_SCORE,
        contract.ERROR,
    )

    score: float = 0.0
    total_score: float = 0.0
    error: str = ""

    @classmethod
    def from_outputs(cls, outputs: dict[str, Any]) -> Self:
        """Reads `score_caption`."""
        return cls(**outputs)  # the fields have the outputs' names


R = TypeVar("R", CaptionResult, FilledText, TextScore)


def read_results(
    response: PredictResponse, result: type[R], count: int, server: str
) -> list[R]:
    """Reads the results of `count` images from the answer of `server`.

    Raises:
        ServingError: An output is missing, cannot be read, or has another
            number of rows.
    """
    missing = [name for name in result.OUTPUTS if name not in response.outputs]
    if missing:
        raise ServingError(
            f"A captioner must answer with {', '.join(result.OUTPUTS)}. The "
            f"answer of {server} lacks {', '.join(missing)}; serve a model "
            "written by `bmt export`."
        )
    columns = []
    for name in result.OUTPUTS:
        try:
            # A scalar has no rows; too few values are repeated up to the shape.
            array = tf.make_ndarray(response.outputs[name])
        except (TypeError, ValueError) as error:
            raise ServingError(
                f"The output {name} of {server} cannot be read: {error}"
            ) from error
        # A row too many or too few would give images each other's captions.
        if array.shape[:1] != (count,):
            raise ServingError(
                f"The output {name} of {server} must have a row per image. "
                f"Received: shape {array.shape}, {count} images."
            )
        columns.append(array.tolist())
    return [
        result.from_outputs(
            dict(zip(result.OUTPUTS, map(_to_plain, row), strict=True))
        )
        for row in zip(*columns, strict=True)
    ]


def _to_plain(value: Any) -> Any:
    """Texts for bytes and tuples for lists, at any depth."""
    if isinstance(value, list):
        return tuple(map(_to_plain, value))
    return value.decode(errors="replace") if isinstance(value, bytes) else value
