"""The signatures that the client asks."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from bmt_keras import contract

from .results import CaptionResult, FilledText, Result, TextScore

R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Signature(Generic[R]):
    """A signature whose first input is a photo.

    Args:
        name: str.
        second_input: str. The name of its other input, or None.
        result: type of a row of its answer.
    """

    name: str
    second_input: str | None
    result: type[R]


CAPTION = Signature(contract.SERVING_DEFAULT, None, CaptionResult)
CAPTION_WITH_LENGTH = Signature(
    contract.CAPTION_WITH_LENGTH, contract.LENGTH, CaptionResult
)
FILL_MASK = Signature(contract.FILL_MASK, contract.TEXT, FilledText)
SCORE_CAPTION = Signature(contract.SCORE_CAPTION, contract.TEXT, TextScore)
