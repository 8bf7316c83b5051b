"""CIDEr-D of many captions against the same references, as a reward.

`scores` takes one caption per image and counts the references at every call;
here they are counted once, for thousands of captions while a captioner trains.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from bmt_keras.evaluation.words import split_caption

_ORDERS = 4
_SIGMA = 6.0

NGram = tuple[str, ...]


class _Sentence(NamedTuple):
    """Weighted n-grams of a caption by order, and its number of word pairs."""

    weights: list[dict[NGram, float]]
    norms: list[float]
    length: int


class CiderD:
    """Scores captions as `score_each_caption` does, which has the formula.

    Args:
        references: Captions by people by image id; wordless ones do not count.
        documents: Captions of each image of a set whose document frequencies
            count; None for the references.

    Reference:
        Vedantam et al. 2015, https://arxiv.org/abs/1411.5726, section 5.
    """

    def __init__(
        self,
        references: Mapping[int, Sequence[str]],
        documents: Collection[Sequence[str]] | None = None,
    ) -> None:
        if documents is None:
            documents = references.values()
        self._images_with: Counter[NGram] = Counter()
        for texts in documents:
            self._images_with.update({n for x in texts for n in _count(x)})
        self._log_images = math.log(max(len(documents), 1))
        self._references = {
            key: [self._weigh(count) for x in texts if (count := _count(x))]
            for key, texts in references.items()
        }

    def score(self, image_id: int, caption: str) -> float:
        """Scores a caption of one of the images: CIDEr-D in [0, 10]."""
        sentence = self._weigh(_count(caption))
        references = self._references[image_id]
        total = sum(_similarity(sentence, each) for each in references)
        return 10.0 * total / max(len(references), 1)

    def _weigh(self, counts: Counter[NGram]) -> _Sentence:
        weights: list[dict[NGram, float]] = [{} for _ in range(_ORDERS)]
        length = 0
        for ngram, count in counts.items():
            # An n-gram of no reference is as rare as one of a single image.
            found = max(self._images_with.get(ngram, 0), 1)
            rarity = self._log_images - math.log(found)
            weights[len(ngram) - 1][ngram] = count * rarity
            # The authors' code counts a caption's length in word pairs.
            length += count * (len(ngram) == 2)
        norms = [math.hypot(*each.values()) for each in weights]
        return _Sentence(weights, norms, length)


def _count(caption: str) -> Counter[NGram]:
    words = split_caption(caption)
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, _ORDERS + 1)
        for start in range(len(words) - order + 1)
    )


def _similarity(sentence: _Sentence, reference: _Sentence) -> float:
    total = 0.0
    for ours, theirs, our_norm, their_norm in zip(
        sentence.weights,
        reference.weights,
        sentence.norms,
        reference.norms,
        strict=True,
    ):
        if our_norm and their_norm:
            # Clipped: repeating a word of the reference earns nothing.
            common = sum(
                min(weight, theirs[ngram]) * theirs[ngram]
                for ngram, weight in ours.items()
                if ngram in theirs
            )
            total += common / (our_norm * their_norm)
    difference = sentence.length - reference.length
    return math.exp(-(difference**2) / (2 * _SIGMA**2)) * total / _ORDERS
