"""How captions are decoded."""

from dataclasses import dataclass
from typing import Any

SCHEDULES = ("linear", "cosine")
ORDERS = ("confidence", "left_to_right")


@dataclass(frozen=True)
class DecodingOptions:
    """How a canvas of masks becomes captions.

    `passes`, `temperature`, `top_p` and `seed` may be scalar tensors, so that
    one trace serves all their values. The rest shapes the graph.

    Attributes:
        passes: Calls of the model, at least 1; `left_to_right` takes one a
            word instead.
        schedule: How many words stay masked from pass to pass: 'linear', or
            'cosine', which writes few words first (Chang et al. 2022, arXiv
            2202.04200).
        order: 'confidence' writes the words in parallel and masks the least
            certain ones again; 'left_to_right' writes one word a pass while
            all behind it are masked.
        temperature: The Python number 0 writes the likeliest words; else
            words are drawn from probabilities with this temperature.
        top_p: Words are drawn from the likeliest ones that together have this
            probability, in (0, 1].
        seed: Seed of the draws; a pair is taken, too.
        length_candidates: Captions written side by side for each photo, of its
            likeliest lengths.
        num_captions: Captions kept of each photo, different where possible.
        length_weight: Weight of the log-probability of a caption's length
            beside the mean log-probability of its words, in choosing.
        overlap_weight: Weight, beside the mean log-probability, of how many
            words a caption is expected to share with people's, where the
            `TokenPredictor` has `found`; in choosing.
        rescore: Choose by the words' log-probabilities in one more pass that
            sees the finished captions, instead of those they were written
            with.
        consensus_draws: Captions drawn of each photo beside the likeliest ones,
            where `temperature` is 0. If there are some, the captions kept are
            those that all written ones resemble most, instead of those with
            the best mean log-probability.
        finalists: Read the best so many captions of each photo once more, each
            word masked in turn, before choosing, and no fewer than
            `num_captions`; 0 for none.
        no_repeated_bigram: Write no two words twice in the same order. Without
            it, they are only kept from following each other at once.

    Raises:
        ValueError: An option is out of its range.
    """

    passes: Any = 10
    schedule: str = "linear"
    order: str = "confidence"
    temperature: Any = 0.0
    top_p: Any = 1.0
    seed: Any = 0
    length_candidates: int = 1
    num_captions: int = 1
    length_weight: float = 0.0
    overlap_weight: float = 0.0
    rescore: bool = False
    consensus_draws: int = 0
    finalists: int = 0
    no_repeated_bigram: bool = False

    def __post_init__(self) -> None:
        """Checks what is known before a graph runs."""
        for name, allowed in (("schedule", SCHEDULES), ("order", ORDERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {allowed}. Received: "
                    f"{name}={getattr(self, name)!r}."
                )
        for name in ("passes", "length_candidates", "num_captions"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}."
                )
        for name in ("consensus_draws", "finalists"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(
                    f"`{name}` must not be negative. Received: {name}={value}."
                )
        if isinstance(self.temperature, float | int) and self.temperature < 0:
            raise ValueError(
                "`temperature` must not be negative. Received: "
                f"temperature={self.temperature}."
            )
        if isinstance(self.top_p, float | int) and not 0 < self.top_p <= 1:
            raise ValueError(
                f"`top_p` must be in (0, 1]. Received: top_p={self.top_p}."
            )

    @property
    def samples(self) -> bool:
        """Whether words are drawn."""
        return not (
            isinstance(self.temperature, float | int) and self.temperature == 0
        )

    @property
    def has_draws(self) -> bool:
        """Whether words of some captions are drawn."""
        return self.samples or self.by_consensus

    @property
    def by_consensus(self) -> bool:
        """Whether captions are kept that the others resemble."""
        return self.consensus_draws > 0 and not self.samples

    @property
    def different_lengths(self) -> int:
        """Lengths among the captions written side by side for each photo."""
        if self.samples:
            return self.length_candidates
        return max(self.length_candidates, self.num_captions)

    @property
    def rows(self) -> int:
        """Captions written side by side for each photo.

        Draws may coincide, so twice as many are made as are kept.
        """
        if not self.samples:
            return self.different_lengths + self.consensus_draws
        twice = 2 if self.num_captions > 1 else 1
        return max(self.length_candidates, twice * self.num_captions)
