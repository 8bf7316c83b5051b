"""What a server answers, as plain values."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from bmt_keras import contract

from ..errors import ServingError


@dataclass(frozen=True)
class CaptionResult:
    """The caption of an image.

    Args:
        caption: The text.
        score: Mean log-probability per token, in nats.
        token_scores: Log-probability of each token; 0 at padding.
        token_ids: The tokens, padding included.
        error: Why the image has no caption; empty where it has one.
    """

    caption: str = ""
    score: float = 0.0
    token_scores: tuple[float, ...] = ()
    token_ids: tuple[int, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Candidate:
    """A token for a mask, and its probability in [0, 1]."""

    text: str
    probability: float


@dataclass(frozen=True)
class FilledText:
    """A text whose masks are filled.

    Args:
        text: The text without masks.
        candidates: For each mask, from left to right, its candidates, the
            likeliest first.
        error: Why the text is not filled; empty where it is.
    """

    text: str = ""
    candidates: tuple[tuple[Candidate, ...], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class TextScore:
    """How likely a text is for its image.

    Args:
        score: Mean log-likelihood per token, in nats.
        total_score: Log-likelihood of all tokens, in nats.
        error: Why there is no score; empty where there is one.
    """

    score: float = 0.0
    total_score: float = 0.0
    error: str = ""


R = TypeVar("R", CaptionResult, FilledText, TextScore)


def read_results(
    response: PredictResponse, result: type[R], count: int, server: str
) -> list[R]:
    """Reads the results of `count` images from the answer of `server`.

    Raises:
        ServingError: An output is missing, cannot be read, or has another
            number of rows.
    """
    # The fields have the outputs' names.
    names = [each.name for each in fields(result)]
    if contract.CANDIDATES in names:
        names.append(contract.CANDIDATE_PROBABILITIES)
    missing = [name for name in names if name not in response.outputs]
    if missing:
        raise ServingError(
            f"A captioner must answer with {', '.join(names)}. The "
            f"answer of {server} lacks {', '.join(missing)}; serve a model "
            "written by `bmt export`."
        )
    columns: dict[str, Any] = {}
    for name in names:
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
        columns[name] = _to_plain(array.tolist())
    if contract.CANDIDATES in names:
        chances = columns.pop(contract.CANDIDATE_PROBABILITIES)
        texts = columns[contract.CANDIDATES]
        columns[contract.CANDIDATES] = map(_pair_candidates, texts, chances)
    return [result(*row) for row in zip(*columns.values(), strict=True)]


def _pair_candidates(texts: Any, chances: Any) -> Any:
    masks = zip(texts, chances, strict=True)
    # Padding, behind the last mask, has no candidate of a probability.
    likely = (
        tuple(Candidate(*x) for x in zip(*mask, strict=True) if x[1] > 0)
        for mask in masks
    )
    return tuple(filter(None, likely))


def _to_plain(value: Any) -> Any:
    """Texts for bytes and tuples for lists, at any depth."""
    if isinstance(value, list):
        return tuple(map(_to_plain, value))
    return value.decode(errors="replace") if isinstance(value, bytes) else value
