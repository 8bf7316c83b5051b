"""The options of one call of the decoder."""

from dataclasses import dataclass
from typing import Any

from bmt_keras.settings import DecodingSettings


@dataclass(frozen=True)
class DecodingOptions(DecodingSettings):
    """How captions are decoded: the settings, and what a call adds.

    `passes`, `temperature`, `top_p` and `seed` may be scalar tensors, so that
    one trace serves all their values; the rest shapes the graph.
    `left_to_right` takes a pass per token, whatever `passes` is, and
    `mbr_samples` count where `temperature` is 0.

    Attributes:
        num_captions: Captions kept of each image, different where possible.
        temperature: Of the probabilities that tokens are drawn from; the Python
            number 0 writes the likeliest tokens.
        top_p: Tokens are drawn from the likeliest ones that together have this
            probability, in (0, 1].
        seed: Of the draws; a number or a pair.

    Raises:
        ValueError: An option is out of its range.
    """

    num_captions: int = 1
    temperature: Any = 0.0
    top_p: Any = 1.0
    seed: Any = 0

    def __post_init__(self) -> None:
        """Checks what is known before a graph runs."""
        super().__post_init__()
        # A tensor's value is not known to the trace.
        temperature, top_p = self.temperature, self.top_p
        if self.num_captions < 1:
            rule = "`num_captions` must be at least 1"
        elif isinstance(temperature, float | int) and temperature < 0:
            rule = "`temperature` must not be negative"
        elif isinstance(top_p, float | int) and not 0 < top_p <= 1:
            rule = "`top_p` must be in (0, 1]"
        else:
            return
        raise ValueError(
            f"{rule}. Received: num_captions={self.num_captions}, "
            f"{temperature=}, {top_p=}."
        )

    @property
    def is_sampling(self) -> bool:
        """Whether all captions are drawn."""
        # A tensor always samples.
        number = isinstance(self.temperature, float | int)
        return not (number and self.temperature == 0)

    @property
    def uses_mbr(self) -> bool:
        """Whether minimum Bayes risk chooses the captions."""
        return self.mbr_samples > 0 and not self.is_sampling

    @property
    def num_lengths(self) -> int:
        """Different lengths among the candidates of an image."""
        if self.is_sampling:
            return self.length_candidates
        return max(self.length_candidates, self.num_captions)

    @property
    def num_candidates(self) -> int:
        """Most candidates of an image."""
        if not self.is_sampling:
            return self.num_lengths + self.mbr_samples
        # Draws may coincide, so twice as many are made as are kept.
        twice = 2 if self.num_captions > 1 else 1
        return max(self.length_candidates, twice * self.num_captions)
