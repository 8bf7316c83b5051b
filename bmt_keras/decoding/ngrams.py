"""Weights of words and pairs of words in captions that are compared."""

from typing import Any, NamedTuple

from keras import ops


class Ngrams(NamedTuple):
    """The n-grams of captions, of one order.

    Attributes:
        ids: int64, (batch, rows, places), the same for the same n-gram, -1
            where there is none.
        weights: float32, (batch, rows, places), how much each counts, 0 where
            there is none.
    """

    ids: Any
    weights: Any

    def is_first(self) -> Any:
        """Whether each stands for the first time in its caption: bool."""
        width = self.ids.shape[-1]
        places = ops.arange(width or ops.shape(self.ids)[-1])
        earlier = places[None, :] < places[:, None]
        same = ops.equal(self.ids[..., :, None], self.ids[..., None, :])
        return ops.logical_not(ops.any(same & earlier, axis=-1))

    def mass(self) -> Any:
        """The weight of each caption: float32, (batch, rows).

        What it says again weighs double: that is shared once at most, and
        stands where something else could.
        """
        times = ops.where(self.is_first(), 1.0, 2.0)
        return ops.sum(self.weights * times, axis=-1)


def words_of_captions(
    token_ids: Any, is_word: Any, token_weights: Any = None
) -> Ngrams:
    """The words of captions.

    Args:
        token_ids: int32, (batch, rows, width).
        is_word: bool, (batch, rows, width).
        token_weights: float32, (vocabulary_size,), not negative; None for 1 of
            all.
    """
    ids = ops.where(is_word, ops.cast(token_ids, "int64"), -1)
    weights = ops.cast(is_word, "float32")
    if token_weights is not None:
        weights = weights * ops.take(token_weights, token_ids, axis=0)
    return Ngrams(ids, weights)


def pairs_of(words: Ngrams) -> Ngrams:
    """The pairs of neighbouring words, of their words' mean weight."""
    first, second = words.ids[..., :-1], words.ids[..., 1:]
    is_pair = ops.logical_and(first >= 0, second >= 0)
    # No token id has more than 31 bits.
    ids = ops.where(is_pair, ops.left_shift(first, 31) + second, -1)
    weights = (words.weights[..., :-1] + words.weights[..., 1:]) / 2.0
    return Ngrams(ids, ops.where(is_pair, weights, 0.0))
