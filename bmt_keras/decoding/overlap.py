"""How much of a caption people would say of the photo."""

from typing import Any, NamedTuple

from keras import ops

from bmt_keras.decoding.ngrams import words_of_captions


class FoundTokens(NamedTuple):
    """What is known of the captions of each photo before one is written.

    Attributes:
        shares: float32, (photos, vocabulary_size), the share of a photo's
            captions that is expected to hold each token.
        weights: float32, (vocabulary_size,), how much a token counts where
            captions are compared, not negative: the rarer, the more.
    """

    shares: Any
    weights: Any


def expected_overlap(token_ids: Any, is_word: Any, found: FoundTokens) -> Any:
    """How many words each caption is expected to share with people's.

    The F1 of words by weight, where a photo's captions by people stand with
    what is expected of them: each of a caption's words is shared as often as
    captions hold it, and captions weigh as much as all that they are expected
    to hold. A caption's mean log-probability is best for the words that are
    surest wherever they stand, this for those that tell the photo apart.

    Args:
        token_ids: int32, (batch, rows, width).
        is_word: bool, (batch, rows, width).
        found: Of the photos; their number divides the batch, and the captions
            of a photo are neighbours.

    Returns:
        float32, (batch, rows), in [0, 1].
    """
    words = words_of_captions(token_ids, is_word, found.weights)
    batch, rows, width = ops.shape(token_ids)
    each = batch // ops.maximum(ops.shape(found.shares)[0], 1)
    shares = ops.repeat(found.shares, each, axis=0)
    flat = ops.reshape(token_ids, (batch, rows * width))
    held = ops.take_along_axis(shares, flat, axis=1)
    held = ops.reshape(held, (batch, rows, width))
    once = ops.where(words.is_first(), words.weights * held, 0.0)
    expected = ops.sum(shares * found.weights, axis=-1, keepdims=True)
    mass = ops.maximum(words.mass() + expected, 1e-6)
    return 2.0 * ops.sum(once, axis=-1) / mass
