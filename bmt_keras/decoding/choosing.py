"""Which tokens may be written at a place, the favourite first."""

from collections.abc import Callable
from typing import Any

from keras import ops

from bmt_keras.decoding.canvas import NEVER

# Draws are made among so many likeliest tokens: to sort more of a vocabulary at
# every place costs as much as the model.
_POOL = 64


def likeliest_tokens(logits: Any, ban: Any, count: int) -> tuple[Any, Any]:
    """The likeliest tokens at each place.

    Args:
        logits: float32, (rows, positions, vocabulary_size).
        ban: float32, (vocabulary_size,), or one for each place: 0 or a large
            negative number.
        count: How many tokens.

    Returns:
        Token ids, int32, and their log-probabilities, float32, (rows,
        positions, count), the likeliest first. The probabilities are the
        model's own, banned tokens included.
    """
    total = ops.logsumexp(logits, axis=-1, keepdims=True)
    values, tokens = ops.top_k(logits + ban, count)
    return ops.cast(tokens, "int32"), values - total


def draw_tokens(
    logits: Any,
    ban: Any,
    count: int,
    *,
    temperature: Any,
    top_p: Any,
    noise_of: Callable[[int], Any],
) -> tuple[Any, Any]:
    """Draws tokens at each place, without putting any back.

    The largest of log-probabilities with Gumbel noise are such draws (Kool et
    al. 2019, arXiv 1903.06059): the first is the written one, the next stand
    ready to replace it.

    Args:
        logits: float32, (rows, positions, vocabulary_size).
        ban: As for `likeliest_tokens`.
        count: How many tokens.
        temperature: Positive; below 1 favours the likely ones. A number, or
            (rows, 1, 1).
        top_p: Tokens outside of the likeliest ones that have this probability
            are drawn only when these run out, the likeliest first.
        noise_of: Gives so many numbers in (0, 1) for each place, float32,
            (rows, positions, numbers).

    Returns:
        As `likeliest_tokens`: the probabilities are without temperature.
    """
    pool = min(_POOL, logits.shape[-1])
    tokens, log_probs = likeliest_tokens(logits, ban, pool)
    # The subtraction keeps a small temperature from overflowing.
    scaled = (log_probs - log_probs[..., :1]) / temperature
    probabilities = ops.softmax(scaled)
    before = ops.cumsum(probabilities, axis=-1) - probabilities
    noisy = scaled - ops.log(-ops.log(noise_of(pool)))
    # A banned token lies below every other one.
    outside = ops.where(log_probs > NEVER / 2, NEVER / 2, NEVER)
    inside = ops.logical_and(before < top_p, log_probs > NEVER / 2)
    _, index = ops.top_k(ops.where(inside, noisy, outside), count)
    return (
        ops.take_along_axis(tokens, index, axis=-1),
        ops.take_along_axis(log_probs, index, axis=-1),
    )
