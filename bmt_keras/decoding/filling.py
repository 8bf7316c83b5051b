"""The passes that write the masks of a canvas.

Mask-predict (Ghazvininejad et al. 2019, arXiv 1904.09324): all words start as
masks; each pass fills them, and the least certain ones are masked again, fewer
from pass to pass.
"""

import math
from typing import Any

import tensorflow as tf
from keras import ops

from bmt_keras.decoding.canvas import Canvas, words_of
from bmt_keras.decoding.choosing import draw_tokens, likeliest_tokens
from bmt_keras.decoding.noise import noise_at, shared_noise_at
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.predictor import (
    TokenPredictor,
    gather_places,
    spread_over_places,
)
from bmt_keras.decoding.repeats import avoid_repeats

# A place may have to avoid two neighbours and the ends of four pairs of pairs.
_CHOICES = 8


def fill_canvas(
    predictor: TokenPredictor,
    canvas: Canvas,
    options: DecodingOptions,
    *,
    is_start: Any = None,
    shared_draws: tuple[int, int] | None = None,
) -> Canvas:
    """Writes the masks of a canvas.

    Args:
        predictor: The model.
        canvas: What to fill.
        options: How.
        is_start: bool, (rows, width), where a word must begin, so that nothing
            goes on with the one before; None for nowhere.
        shared_draws: The rows of each photo and the width of the widest canvas:
            each photo draws the same numbers. None for numbers of its own.

    Returns:
        The canvas without masks; `scores` holds the log-probability of each
        word when it was written.
    """
    special = predictor.special
    is_word = words_of(canvas.token_ids, special)
    to_write = ops.equal(canvas.token_ids, special.mask_id)
    count = ops.sum(ops.cast(to_write, "int32"), axis=-1, keepdims=True)
    in_turn = options.order == "left_to_right"
    longest = ops.max(count, initial=0)
    passes = longest if in_turn else _used_passes(longest, options)
    ban = predictor.ban()
    favourites = min(_CHOICES, predictor.num_writable)

    def choose(logits: Any, places: Any, step: Any) -> tuple[Any, Any]:
        banned = ban
        if is_start is not None:
            banned = predictor.ban_at(places, is_start=is_start)
        if not options.samples:
            return likeliest_tokens(logits, banned, favourites)
        seed = _seed_of_pass(options.seed, step)

        def noise_of(size: int) -> Any:
            if shared_draws is None:
                return noise_at(places, size=size, seed=seed)
            rows, width = shared_draws
            return shared_noise_at(
                places, rows=rows, width=width, size=size, seed=seed
            )

        return draw_tokens(
            logits,
            banned,
            favourites,
            temperature=options.temperature,
            top_p=options.top_p,
            noise_of=noise_of,
        )

    def write(step: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        token_ids, scores = state
        if in_turn:
            turn = ops.cumsum(ops.cast(to_write, "int32"), axis=-1) - 1
            hidden = ops.logical_and(to_write, turn >= step)
            written = ops.logical_and(to_write, ops.equal(turn, step))
        else:
            share = share_masked(step, options.passes, options.schedule)
            hidden = written = least_certain(scores, to_write, count, share)
        shown = ops.where(hidden, special.mask_id, token_ids)
        places = gather_places(written)
        logits = predictor.logits_at(shown, places)
        choices, log_probs = choose(logits, places, step)
        choices = spread_over_places(choices, written)
        log_probs = spread_over_places(log_probs, written)
        unknown = ops.logical_and(hidden, ops.logical_not(written))
        taken = avoid_repeats(
            token_ids,
            choices,
            log_probs[..., 0],
            written=written,
            known=ops.logical_and(is_word, ops.logical_not(unknown)),
            no_repeated_bigram=options.no_repeated_bigram,
        )
        index = ops.expand_dims(taken, -1)

        def pick(values: Any, old: Any) -> Any:
            new = ops.take_along_axis(values, index, axis=-1)[..., 0]
            return ops.where(written, new, old)

        return pick(choices, token_ids), pick(log_probs, scores)

    state = (canvas.token_ids, canvas.scores)
    return Canvas(*ops.fori_loop(0, passes, write, state))


def share_masked(step: Any, passes: Any, schedule: str) -> Any:
    """The share of words that a pass masks: 1 at first, then less.

    Args:
        step: Number of the pass, from 0.
        passes: Number of passes.
        schedule: 'linear', 1 - step / passes, or 'cosine', cos(pi / 2 * step /
            passes).

    Returns:
        float32, a number in (0, 1].
    """
    done = ops.cast(step, "float32") / ops.cast(passes, "float32")
    if schedule == "cosine":
        return ops.cos(done * (math.pi / 2))
    return 1.0 - done


def least_certain(scores: Any, to_write: Any, count: Any, share: Any) -> Any:
    """The share of words with the lowest scores.

    Args:
        scores: float32, (rows, width), at most 0.
        to_write: bool, (rows, width), the words to choose from.
        count: int32, (rows, 1), their number.
        share: float32, a number in (0, 1]; 1 takes every word.

    Returns:
        bool, (rows, width).
    """
    wanted = _words_masked(count, share)
    order = ops.argsort(ops.where(to_write, scores, 1.0), axis=-1)
    rank = ops.cast(ops.argsort(order, axis=-1), "float32")
    return ops.logical_and(rank < wanted, to_write)


def _words_masked(count: Any, share: Any) -> Any:
    """So many of the words a pass masks: float32."""
    # The small constant keeps 0.5 * 6 from becoming 2 after rounding.
    return ops.floor(ops.cast(count, "float32") * share + 1e-4)


def _used_passes(longest: Any, options: DecodingOptions) -> Any:
    """How many passes mask a word at all; each later one masks none, too."""
    steps = ops.arange(options.passes)
    shares = share_masked(steps, options.passes, options.schedule)
    is_used = _words_masked(longest, shares) >= 1.0
    return ops.sum(ops.cast(is_used, "int32"))


def _seed_of_pass(seed: Any, step: Any) -> Any:
    """Passes draw apart from each other, and so do neighbouring seeds."""
    seed = tf.reshape(tf.cast(seed, tf.int32), (-1,))
    return tf.random.experimental.stateless_fold_in(
        tf.stack([seed[0], seed[-1]]), tf.cast(step, tf.int32)
    )
