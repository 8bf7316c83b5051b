"""The options of one call of the decoder."""

from dataclasses import dataclass, field
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
        top_p: Draw among the likeliest tokens of this probability, in (0, 1].
        seed: Of the draws; a number or a pair.

    Raises:
        InputError: An option is out of its range.
    """

    # The settings check these bounds; a tensor's value no trace can know.
    num_captions: int = field(default=1, metadata={"bounds": {"at_least": 1}})
    temperature: Any = field(default=0.0, metadata={"bounds": {"at_least": 0}})
    top_p: Any = field(
        default=1.0, metadata={"bounds": {"above": 0, "at_most": 1}}
    )
    seed: Any = 0

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
