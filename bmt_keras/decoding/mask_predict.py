"""Captions written by a masked language model in a few parallel passes.

Mask-predict (Ghazvininejad et al. 2019, arXiv 1904.09324): all tokens start as
masks; each pass fills them, and the least certain ones are masked again, fewer
from pass to pass. Some candidates are written side by side for each image, of
several lengths or by several draws, and the best of them are kept.
"""

import dataclasses
from typing import Any

import tensorflow as tf
from keras import ops

from bmt_keras.decoding.canvas import (
    NEVER,
    Canvas,
    blank_canvas,
    gather_positions,
    in_frame,
    padding_mask_of,
    spread_to_positions,
)
from bmt_keras.decoding.choosing import choose_captions
from bmt_keras.decoding.constraints import (
    candidate_lengths,
    expand_templates,
    place_keywords,
    restrict_lengths,
)
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.predictor import TokenPredictor
from bmt_keras.decoding.repeats import avoid_repeats

# How captions are drawn for minimum Bayes risk.
_MBR_TEMPERATURE, _MBR_TOP_P = 0.7, 0.9
_LIKELIEST = 1e-4  # a temperature at which only the likeliest is drawn
# A token may have to avoid two neighbours and the ends of four pairs of pairs.
_CHOICES = 8
# Draws are made among this many of the likeliest tokens: to sort more of a
# vocabulary at every position costs as much as the model.
_POOL = 64


def mask_predict(
    predictor: TokenPredictor,
    *,
    options: DecodingOptions,
    length_bounds: Any = None,
    keywords: Any = None,
) -> dict[str, Any]:
    """Writes captions.

    Args:
        predictor: The model; it sees `options.num_candidates` of each image, or
            fewer where no more lengths are possible.
        options: How to decode.
        length_bounds: int32, (2,) or (images, 2), the fewest and most tokens.
        keywords: int32, (images or 1, keywords, tokens), padding after the
            tokens: each stands in the caption.

    Returns:
        Of each image its captions, the best first. `token_ids`: int32, (images,
        num_captions, max_caption_tokens + 2), `[CLS]` … `[SEP]` and padding;
        `token_scores`: float32, likewise, log-probability of each token when
        written, else 0; `score`: float32, (images, num_captions), their mean.
    """
    tokenizer, log_probs = predictor.tokenizer, predictor.length_log_probs
    if length_bounds is not None:
        log_probs = restrict_lengths(log_probs, length_bounds)
    if keywords is not None:
        least = ops.sum(padding_mask_of(keywords, tokenizer), axis=(1, 2))
        most = ops.full_like(least, log_probs.shape[-1])
        log_probs = restrict_lengths(log_probs, ops.stack([least, most], -1))
    canvas = blank_canvas(candidate_lengths(log_probs, options), tokenizer)
    if keywords is not None:
        canvas = place_keywords(predictor, canvas, keywords)
    is_judged = in_frame(canvas.token_ids, tokenizer)
    return _write_and_choose(predictor, canvas, is_judged, options)


def fill_templates(
    predictor: TokenPredictor, templates: Any, *, options: DecodingOptions
) -> dict[str, Any]:
    """Writes the masks and gaps of captions given in part.

    Of each template `options.num_candidates` canvases are tried, none drawn.

    Args:
        predictor: The model.
        templates: int32, (images, tokens): tokens, which stay; masks, for one
            token each; `GAP`, for one or more tokens; padding at the end.
        options: How to decode.

    Returns:
        The dictionary of `mask_predict`; `score` leaves out given tokens.
    """
    options = dataclasses.replace(options, mbr_samples=0)
    canvas = expand_templates(predictor, templates, options.num_candidates)
    mask_token_id = predictor.tokenizer.mask_token_id
    is_judged = ops.equal(canvas.token_ids, mask_token_id)
    return _write_and_choose(predictor, canvas, is_judged, options)


def draw_captions(
    predictor: TokenPredictor, *, options: DecodingOptions
) -> Any:
    """Draws captions of drawn lengths, to learn from.

    `options.temperature` must not be the number 0, `options.seed` a pair.

    Returns:
        int32, (images, num_captions, width), as wide as the longest needs.
    """
    # keras.random.categorical takes no seed that is a tensor.
    drawn = tf.random.stateless_categorical(
        predictor.length_log_probs[:, 1:],
        options.num_captions,
        options.seed,
        tf.int32,
    )
    canvas = blank_canvas(drawn + 1, predictor.tokenizer)
    return write_masks(predictor, canvas, options).token_ids


def fill_masks(
    predictor: TokenPredictor, token_ids: Any, *, options: DecodingOptions
) -> Any:
    """Writes the masks of captions that are whole but for them.

    Maps framed `token_ids`, int32, (images, width), to the same without masks.
    """
    token_ids = token_ids[:, None]  # one candidate
    scores = ops.zeros(ops.shape(token_ids), "float32")
    is_mask = ops.equal(token_ids, predictor.tokenizer.mask_token_id)
    canvas = Canvas(token_ids, scores, is_start=is_mask)
    return write_masks(predictor, canvas, options).token_ids[:, 0]


def _write_and_choose(
    predictor: TokenPredictor,
    canvas: Canvas,
    is_judged: Any,
    options: DecodingOptions,
) -> dict[str, Any]:
    width = predictor.length_log_probs.shape[-1] + 1
    draws, shared_width = options, None
    if options.uses_mbr:
        # Equal noise for all images: a caption is not to change with its batch.
        draws, shared_width = _mbr_draws(options), width
    written = write_masks(predictor, canvas, draws, shared_width=shared_width)
    return choose_captions(
        predictor, written, is_judged, options=options, width=width
    )


def _mbr_draws(options: DecodingOptions) -> DecodingOptions:
    """Draws for minimum Bayes risk, after candidates that are the likeliest."""
    samples = options.mbr_samples
    likeliest = options.num_candidates - samples
    temperature: Any = [_LIKELIEST] * likeliest + [_MBR_TEMPERATURE] * samples
    temperature = ops.reshape(ops.array(temperature, "float32"), (1, -1, 1, 1))
    return dataclasses.replace(
        options, temperature=temperature, top_p=_MBR_TOP_P, seed=0
    )


# === Passes ===


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
    mask_token_id = predictor.tokenizer.mask_token_id
    is_token = in_frame(canvas.token_ids, predictor.tokenizer)
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
        pool = min(_POOL, predictor.tokenizer.vocabulary_size)
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
