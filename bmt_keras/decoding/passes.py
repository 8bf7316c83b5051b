"""The passes that write the masks of a canvas.

Mask-predict (Ghazvininejad et al. 2019, arXiv 1904.09324): all tokens start as
masks; each pass fills them, and the least certain ones are masked again, fewer
from pass to pass.
"""

from typing import Any, NamedTuple

import tensorflow as tf
from keras import ops

from bmt_keras.decoding.canvas import NEVER, Canvas, in_frame
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.predictor import (
    TokenPredictor,
    gather_positions,
    spread_to_positions,
)
from bmt_keras.decoding.repeats import avoid_repeats

# A token may have to avoid two neighbours and the ends of four pairs of pairs.
_CHOICES = 8
# Draws are made among this many of the likeliest tokens: to sort more of a
# vocabulary at every position costs as much as the model.
_POOL = 64


class Draws(NamedTuple):
    """How tokens are drawn.

    Attributes:
        temperature: Positive; below 1 favours the likely tokens. A number, or
            float32, (1, candidates, 1, 1).
        top_p: Tokens outside of the likeliest ones that have this probability
            are drawn only when these run out, the likeliest first.
        seed: A number or a pair.
        shared_width: Width of the widest canvas there may be, for the same
            random numbers for each image, whatever its batch; None for numbers
            of its own.
    """

    temperature: Any
    top_p: Any
    seed: Any
    shared_width: int | None = None


def write_masks(
    predictor: TokenPredictor,
    canvas: Canvas,
    options: DecodingOptions,
    *,
    draws: Draws | None = None,
) -> Canvas:
    """Writes the masks of a canvas.

    Args:
        predictor: The model.
        canvas: What to write on.
        options: The order and number of passes.
        draws: How tokens are drawn; None to write the likeliest ones.

    Returns:
        The canvas without masks; `scores` holds the log-probability of each
        token when it was written.
    """
    mask_token_id = predictor.special.mask_token_id
    is_token = in_frame(canvas.token_ids, predictor.special)
    to_write = ops.equal(canvas.token_ids, mask_token_id)
    number = ops.cast(to_write, "int32")
    count = ops.sum(number, axis=-1, keepdims=True)
    turn = ops.cumsum(number, axis=-1) - 1
    longest = ops.max(count, initial=0)
    in_turn = options.order == "left_to_right"

    def write(step: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        token_ids, scores = state
        if in_turn:
            hidden = ops.logical_and(to_write, turn >= step)
            chosen = ops.logical_and(to_write, ops.equal(turn, step))
        else:
            wanted = _tokens_masked(count, step, options.passes)
            hidden = chosen = _least_certain(scores, to_write, wanted)
        shown = canvas._replace(
            token_ids=ops.where(hidden, mask_token_id, token_ids)
        )
        choices, log_probs = _choices_at(predictor, shown, chosen, step, draws)
        unknown = ops.logical_and(hidden, ops.logical_not(chosen))
        taken = avoid_repeats(
            token_ids,
            choices,
            log_probs[..., 0],
            written=chosen,
            known=ops.logical_and(is_token, ops.logical_not(unknown)),
        )[..., None]
        tokens = ops.take_along_axis(choices, taken, axis=-1)[..., 0]
        log_probs = ops.take_along_axis(log_probs, taken, axis=-1)[..., 0]
        return (
            ops.where(chosen, tokens, token_ids),
            ops.where(chosen, log_probs, scores),
        )

    passes = longest if in_turn else _used_passes(longest, options.passes)
    token_ids, scores = ops.fori_loop(
        0, passes, write, (canvas.token_ids, canvas.scores)
    )
    return canvas._replace(token_ids=token_ids, scores=scores)


def _choices_at(
    predictor: TokenPredictor,
    shown: Canvas,
    chosen: Any,
    step: Any,
    draws: Draws | None,
) -> tuple[Any, Any]:
    """Tokens for the chosen positions and their log-probabilities.

    Both are (images, candidates, width, choices), the favourite first.
    """
    positions = gather_positions(chosen)
    count = min(_CHOICES, predictor.num_writable)
    pool = count if draws is None else min(_POOL, predictor.vocabulary_size)
    tokens, log_probs = predictor.likeliest_at(
        shown.token_ids, positions, pool, is_start=shown.is_start
    )
    if draws is not None:
        noise = _noise_at(positions, pool, step, draws)
        tokens, log_probs = draw_tokens(
            tokens, log_probs, count, draws=draws, noise=noise
        )
    return (
        spread_to_positions(tokens, chosen),
        spread_to_positions(log_probs, chosen),
    )


def draw_tokens(
    tokens: Any, log_probs: Any, count: int, *, draws: Draws, noise: Any
) -> tuple[Any, Any]:
    """Draws tokens at each position, without putting any back.

    The largest of log-probabilities with Gumbel noise are such draws (Kool et
    al. 2019, arXiv 1903.06059): the first is the written one, the next stand
    ready to replace it.

    Args:
        tokens: int32, (images, candidates, positions, pool), the likeliest
            first.
        log_probs: float32, of the same shape.
        count: How many tokens to draw.
        draws: How.
        noise: float32, of the same shape, uniform in (0, 1).

    Returns:
        Token ids, int32, and their log-probabilities without temperature,
        float32, (images, candidates, positions, count).
    """
    # The subtraction keeps a small temperature from overflowing.
    scaled = (log_probs - log_probs[..., :1]) / draws.temperature
    probabilities = ops.softmax(scaled)
    before = ops.cumsum(probabilities, axis=-1) - probabilities
    noisy = scaled - ops.log(-ops.log(noise))
    # A banned token lies below every other one.
    is_allowed = log_probs > NEVER / 2
    outside = ops.where(is_allowed, NEVER / 2, NEVER)
    inside = ops.logical_and(before < draws.top_p, is_allowed)
    _, index = ops.top_k(ops.where(inside, noisy, outside), count)
    return (
        ops.take_along_axis(tokens, index, axis=-1),
        ops.take_along_axis(log_probs, index, axis=-1),
    )


def _noise_at(positions: Any, size: int, step: Any, draws: Draws) -> Any:
    """Uniform numbers: float32, (images, candidates, positions, size)."""
    # Stateless random numbers are TensorFlow's: those of keras.random keep
    # state, or take no seed that is a tensor. Passes draw apart from each
    # other, and so do neighbouring seeds.
    seed = tf.reshape(tf.cast(draws.seed, tf.int32), (-1,))
    seed = tf.random.experimental.stateless_fold_in(
        tf.stack([seed[0], seed[-1]]), tf.cast(step, tf.int32)
    )
    width = draws.shared_width
    if width is None:
        return _uniform((*ops.shape(positions), size), seed)
    candidates = ops.shape(positions)[1]
    noise = _uniform((candidates * width, size), seed)
    first = width * ops.arange(candidates, dtype="int32")[:, None]
    return ops.take(noise, first + positions, axis=0)


def _uniform(shape: Any, seed: Any) -> Any:
    # Not from 0, whose logarithm is infinite.
    return tf.random.stateless_uniform(
        shape, seed, minval=1e-20, dtype=tf.float32
    )


def _least_certain(scores: Any, to_write: Any, wanted: Any) -> Any:
    """The wanted number of tokens with the lowest scores, at most 0: bool."""
    order = ops.argsort(ops.where(to_write, scores, 1.0), axis=-1)
    rank = ops.cast(ops.argsort(order, axis=-1), "float32")
    return ops.logical_and(rank < wanted, to_write)


def _tokens_masked(count: Any, step: Any, passes: Any) -> Any:
    """How many of the tokens a pass masks, fewer from step to step: float32."""
    done = ops.cast(step, "float32") / ops.cast(passes, "float32")
    # The small constant keeps 0.5 * 6 from becoming 2 after rounding.
    return ops.floor(ops.cast(count, "float32") * (1.0 - done) + 1e-4)


def _used_passes(longest: Any, passes: Any) -> Any:
    """How many passes mask a token at all; each later one masks none, too."""
    masked = _tokens_masked(longest, ops.arange(passes), passes)
    return ops.sum(ops.cast(masked >= 1.0, "int32"))
