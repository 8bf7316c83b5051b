"""Captions written by a masked language model in a few parallel passes.

Some candidates are written side by side for each photo, of several lengths or
by several draws, and the best of them are kept.
"""

import dataclasses
from typing import Any

from keras import ops

from bmt_keras.decoding.canvas import (
    Canvas,
    blank_canvas,
    pad_width,
    words_of,
)
from bmt_keras.decoding.filling import fill_canvas
from bmt_keras.decoding.finalists import read_finalists
from bmt_keras.decoding.keywords import place_keywords
from bmt_keras.decoding.lengths import (
    candidate_lengths,
    draw_lengths,
    restrict_lengths,
    without_copies,
)
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.predictor import TokenPredictor
from bmt_keras.decoding.ranking import (
    best_rows,
    mean_over,
    rank_captions,
    take_rows,
)
from bmt_keras.decoding.scoring import rescore_words
from bmt_keras.decoding.templates import expand_templates

# How captions are drawn for a consensus.
_TEMPERATURE, _TOP_P = 0.7, 0.9
_LIKELIEST = 1e-4  # a temperature at which no other than the likeliest is drawn


def mask_predict(
    predictor: TokenPredictor,
    length_log_probs: Any,
    *,
    options: DecodingOptions,
    length: Any = None,
    length_bounds: Any = None,
    keywords: Any = None,
) -> dict[str, Any]:
    """Writes captions.

    Args:
        predictor: The model; it sees neighbouring rows for each photo:
            `options.rows`, or fewer where no more lengths are possible.
        length_log_probs: float, (batch, max_caption_length + 1): of each number
            of words its log-probability; 0 words are never written.
        options: How to decode.
        length: int32, (batch,), the asked numbers of words, 0 where free.
        length_bounds: int32, (2,) or (batch, 2), the fewest and most words.
        keywords: int32, (batch, keywords, tokens), padding after the tokens:
            each stands in the caption.

    Returns:
        Dictionary, of each photo its `options.num_captions` captions as
        neighbouring rows, the best first:
        `token_ids`: int32, (rows, max_caption_length + 2), `[CLS]` … `[SEP]`
        and padding;
        `token_scores`: float32, (rows, max_caption_length + 2), log-probability
        of each word when it was written, 0 elsewhere;
        `score`: float32, (rows,), their mean over the words;
        with `options.rescore` also `final_token_scores`: float32, (rows,
        max_caption_length + 2), log-probabilities in the finished caption.
    """
    log_probs = restrict_lengths(
        length_log_probs, length=length, bounds=length_bounds
    )
    if keywords is not None:
        is_token = ops.not_equal(keywords, predictor.special.pad_id)
        least = ops.sum(ops.cast(is_token, "int32"), axis=(1, 2))
        most = ops.full_like(least, log_probs.shape[-1])
        log_probs = restrict_lengths(
            log_probs, bounds=ops.stack([least, most], axis=-1)
        )
    lengths = candidate_lengths(
        log_probs,
        distinct=options.different_lengths,
        rows=options.rows,
    )
    if not options.has_draws:
        lengths = without_copies(lengths, log_probs, least=options.num_captions)
    canvas = blank_canvas(ops.reshape(lengths, (-1, 1)), predictor.special)
    if keywords is not None:
        keywords = ops.repeat(keywords, ops.shape(lengths)[1], axis=0)
        canvas = place_keywords(predictor, canvas, keywords)
    counted = words_of(canvas.token_ids, predictor.special)
    written = _fill(
        predictor,
        canvas,
        options,
        width=log_probs.shape[-1] + 1,
        is_start=None if keywords is None else _after_given(canvas, predictor),
    )
    return _keep_best(
        predictor, written, counted, lengths, length_log_probs, options
    )


def draw_captions(
    predictor: TokenPredictor,
    length_log_probs: Any,
    *,
    options: DecodingOptions,
) -> Any:
    """Draws captions of drawn lengths, to learn from.

    Args:
        predictor: The model, as for `mask_predict`.
        length_log_probs: float, (batch, max_caption_length + 1).
        options: How to decode: `options.num_captions` are drawn of each photo
            and all of them kept; `options.temperature` is not the number 0.

    Returns:
        int32, (batch * num_captions, width), as wide as the longest needs.
    """
    rows = options.num_captions
    lengths = draw_lengths(length_log_probs, rows=rows, seed=options.seed)
    canvas = blank_canvas(ops.reshape(lengths, (-1, 1)), predictor.special)
    return fill_canvas(predictor, canvas, options).token_ids


def fill_masks(
    predictor: TokenPredictor, token_ids: Any, *, options: DecodingOptions
) -> Any:
    """Writes the masks of captions that are whole but for them.

    Args:
        predictor: The model; it sees one row for each caption.
        token_ids: int32, (batch, width), `[CLS]` … `[SEP]` and padding.
        options: How to write.

    Returns:
        int32, (batch, width).
    """
    scores = ops.zeros(ops.shape(token_ids), "float32")
    canvas = Canvas(token_ids, scores)
    is_mask = ops.equal(token_ids, predictor.special.mask_id)
    return fill_canvas(predictor, canvas, options, is_start=is_mask).token_ids


def fill_templates(
    predictor: TokenPredictor,
    length_log_probs: Any,
    templates: Any,
    *,
    options: DecodingOptions,
) -> dict[str, Any]:
    """Writes the masks and gaps of captions given in part.

    Args:
        predictor: The model, as for `mask_predict`.
        length_log_probs: float, (batch, max_caption_length + 1).
        templates: int32, (batch, tokens): tokens, which stay; masks, for one
            word each; `GAP`, for one or more words; padding at the end.
        options: How to decode; `options.rows` canvases are tried for each
            template, none of them for a consensus.

    Returns:
        The dictionary of `mask_predict`. Tokens that were given have a score
        of 0 and are no part of `score`.
    """
    options = dataclasses.replace(options, consensus_draws=0)
    canvas, lengths, is_start = expand_templates(
        templates,
        ops.cast(length_log_probs, "float32"),
        special=predictor.special,
        candidates=options.rows,
    )
    counted = ops.equal(canvas.token_ids, predictor.special.mask_id)
    written = fill_canvas(predictor, canvas, options, is_start=is_start)
    return _keep_best(
        predictor, written, counted, lengths, length_log_probs, options
    )


def _fill(
    predictor: TokenPredictor,
    canvas: Canvas,
    options: DecodingOptions,
    *,
    width: int,
    is_start: Any,
) -> Canvas:
    """Fills a canvas, some of its rows by draws if there is to be a consensus.

    The draws depend on the photo alone, so that its caption does not change
    with the photos beside it.

    Args:
        predictor: The model.
        canvas: `options.rows` rows for each photo.
        options: How.
        width: Places of the widest canvas there may be.
        is_start: As for `fill_canvas`.
    """
    if not options.by_consensus:
        return fill_canvas(predictor, canvas, options, is_start=is_start)
    rows, draws = options.rows, options.consensus_draws
    each = [_LIKELIEST] * (rows - draws) + [_TEMPERATURE] * draws
    photos = ops.shape(canvas.token_ids)[0] // rows
    temperature = ops.tile(ops.array(each, "float32"), (photos,))
    drawing = dataclasses.replace(
        options,
        temperature=ops.reshape(temperature, (-1, 1, 1)),
        top_p=_TOP_P,
        seed=0,
    )
    return fill_canvas(
        predictor,
        canvas,
        drawing,
        is_start=is_start,
        shared_draws=(rows, width),
    )


def _after_given(canvas: Canvas, predictor: TokenPredictor) -> Any:
    """The places after given words: bool, (rows, width)."""
    is_word = words_of(canvas.token_ids, predictor.special)
    is_mask = ops.equal(canvas.token_ids, predictor.special.mask_id)
    is_given = ops.logical_and(is_word, ops.logical_not(is_mask))
    return ops.pad(is_given[:, :-1], [[0, 0], [1, 0]])


def _keep_best(
    predictor: TokenPredictor,
    written: Canvas,
    counted: Any,
    lengths: Any,
    length_log_probs: Any,
    options: DecodingOptions,
) -> dict[str, Any]:
    width = length_log_probs.shape[-1] + 1
    values = {
        "token_ids": pad_width(written.token_ids, width),
        "token_scores": pad_width(written.scores, width),
        "score": mean_over(written.scores, counted),
    }
    ranks = values["score"]
    if options.rescore:
        final = rescore_words(predictor, written.token_ids)
        values["final_token_scores"] = pad_width(final, width)
        ranks = mean_over(final, counted)
    rows = ops.shape(lengths)[1]
    grouped = {
        name: ops.reshape(value, (-1, rows, *value.shape[1:]))
        for name, value in values.items()
    }
    prior = ops.take_along_axis(length_log_probs, lengths, axis=1)
    ranks = ops.reshape(ranks, (-1, rows))
    ranks = ranks + options.length_weight * ops.cast(prior, "float32")
    is_word = words_of(values["token_ids"], predictor.special)
    ranks = rank_captions(
        ranks,
        grouped["token_ids"],
        ops.reshape(is_word, (-1, rows, width)),
        options=options,
        found=predictor.found,
    )
    if options.finalists > 1:
        places = ops.shape(counted)[-1]
        grouped, ranks = read_finalists(
            predictor,
            grouped,
            ranks,
            ops.reshape(counted, (-1, rows, places)),
            options=options,
        )
    best = best_rows(
        grouped["token_ids"], ranks, num_captions=options.num_captions
    )
    return {name: take_rows(value, best) for name, value in grouped.items()}
