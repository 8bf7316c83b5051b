"""The passes that write the masks of a canvas.

Mask-predict (Ghazvininejad et al. 2019, arXiv 1904.09324): all tokens start as
masks; each pass fills them, and the least certain ones are masked again, fewer
from pass to pass.
"""

from typing import Any

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


def write_masks(
    predictor: TokenPredictor,
    canvas: Canvas,
    options: DecodingOptions,
    *,
    shared_width: int | None = None,
) -> Canvas:
    """Writes the masks of a canvas.

    The canvas's `scores` become each token's log-probability when written.
    `shared_width`, of the widest canvas there may be, makes the random numbers
    the same for each image, whatever its batch.
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
            hidden = to_write & (turn >= step)
            chosen = to_write & ops.equal(turn, step)
        else:
            wanted = _tokens_masked(count, step, options.passes)
            # The least certain ones; scores are at most 0.
            order = ops.argsort(ops.where(to_write, scores, 1.0), axis=-1)
            rank = ops.cast(ops.argsort(order, axis=-1), "float32")
            hidden = chosen = (rank < wanted) & to_write
        shown = canvas._replace(
            token_ids=ops.where(hidden, mask_token_id, token_ids)
        )
        choices, log_probs = _choices_at(
            predictor, shown, chosen, step, options, shared_width
        )
        known, certainty = is_token & (chosen | ~hidden), log_probs[..., 0]
        taken = avoid_repeats(
            token_ids, choices, certainty, written=chosen, known=known
        )[..., None]
        tokens = ops.take_along_axis(choices, taken, axis=-1)[..., 0]
        token_ids = ops.where(chosen, tokens, token_ids)
        log_probs = ops.take_along_axis(log_probs, taken, axis=-1)[..., 0]
        return token_ids, ops.where(chosen, log_probs, scores)

    if in_turn:
        passes = longest
    else:  # those that mask a token at all: each later one masks none, too
        steps = ops.arange(options.passes)
        masked = _tokens_masked(longest, steps, options.passes)
        passes = ops.sum(ops.cast(masked >= 1.0, "int32"))
    token_ids, scores = ops.fori_loop(
        0, passes, write, (canvas.token_ids, canvas.scores)
    )
    return canvas._replace(token_ids=token_ids, scores=scores)


def _choices_at(
    predictor: TokenPredictor,
    shown: Canvas,
    chosen: Any,
    step: Any,
    options: DecodingOptions,
    shared_width: int | None,
) -> tuple[Any, Any]:
    """Tokens for the chosen positions and their log-probabilities.

    Both are (images, candidates, width, choices), the favourite first.
    """
    positions = gather_positions(chosen)
    count = min(_CHOICES, predictor.num_writable)
    pool = count
    if options.is_sampling:
        pool = min(_POOL, predictor.vocabulary_size)
    tokens, log_probs = predictor.likeliest_at(
        shown.token_ids, positions, pool, is_start=shown.is_start
    )
    if options.is_sampling:
        noise = _noise_at(positions, pool, step, options.seed, shared_width)
        tokens, log_probs = draw_tokens(
            tokens, log_probs, count, options=options, noise=noise
        )
    tokens = spread_to_positions(tokens, chosen)
    return tokens, spread_to_positions(log_probs, chosen)


def draw_tokens(
    tokens: Any,
    log_probs: Any,
    count: int,
    *,
    options: DecodingOptions,
    noise: Any,
) -> tuple[Any, Any]:
    """Draws tokens at each position, without putting any back.

    The largest of log-probabilities with Gumbel noise are such draws (Kool et
    al. 2019, arXiv 1903.06059): the first is the written one, the next stand
    ready to replace it. Of a pool of tokens, the likeliest first, their
    log-probabilities and noise in (0, 1), all (images, candidates, positions,
    pool), it gives `count` tokens and log-probabilities without temperature.
    """
    # The subtraction keeps a small temperature from overflowing.
    scaled = (log_probs - log_probs[..., :1]) / options.temperature
    probabilities = ops.softmax(scaled)
    before = ops.cumsum(probabilities, axis=-1) - probabilities
    noisy = scaled - ops.log(-ops.log(noise))
    # Tokens outside of `top_p` are drawn when those inside run out, the
    # likeliest first. A banned token lies below every other one.
    is_allowed = log_probs > NEVER / 2
    outside = ops.where(is_allowed, NEVER / 2, NEVER)
    inside = (before < options.top_p) & is_allowed
    _, index = ops.top_k(ops.where(inside, noisy, outside), count)
    tokens = ops.take_along_axis(tokens, index, axis=-1)
    return tokens, ops.take_along_axis(log_probs, index, axis=-1)


def _noise_at(
    positions: Any, size: int, step: Any, seed: Any, width: int | None
) -> Any:
    """Uniform numbers: float32, (images, candidates, positions, size)."""
    # Stateless random numbers are TensorFlow's: those of keras.random keep
    # state, or take no seed that is a tensor. Passes draw apart from each
    # other, and so do neighbouring seeds.
    seed = tf.reshape(tf.cast(seed, tf.int32), (-1,))
    seed = tf.random.experimental.stateless_fold_in(
        tf.stack([seed[0], seed[-1]]), tf.cast(step, tf.int32)
    )

    def uniform(shape: Any) -> Any:
        # Not from 0, whose logarithm is infinite.
        return tf.random.stateless_uniform(shape, seed, 1e-20)

    if width is None:
        return uniform((*ops.shape(positions), size))
    candidates = ops.shape(positions)[1]
    noise = uniform((candidates * width, size))
    first = width * ops.arange(candidates, dtype="int32")[:, None]
    return ops.take(noise, first + positions, axis=0)


def _tokens_masked(count: Any, step: Any, passes: Any) -> Any:
    """How many of the tokens a pass masks, fewer from step to step: float32."""
    done = ops.cast(step, "float32") / ops.cast(passes, "float32")
    # The small constant keeps 0.5 * 6 from becoming 2 after rounding.
    return ops.floor(ops.cast(count, "float32") * (1.0 - done) + 1e-4)
