"""Captions written by a masked language model in a few parallel passes.

Some candidates are written side by side for each image, of several lengths or
by several draws, and the best of them are kept.
"""

import dataclasses
from typing import Any

from keras import ops

from bmt_keras.decoding.canvas import Canvas, blank_canvas, in_frame
from bmt_keras.decoding.choosing import choose_captions
from bmt_keras.decoding.constraints import (
    candidate_lengths,
    draw_lengths,
    expand_templates,
    keyword_sizes,
    place_keywords,
    restrict_lengths,
)
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.passes import Draws, write_masks
from bmt_keras.decoding.predictor import TokenPredictor

# How captions are drawn for minimum Bayes risk.
_MBR_TEMPERATURE, _MBR_TOP_P = 0.7, 0.9
_LIKELIEST = 1e-4  # a temperature at which only the likeliest is drawn


def mask_predict(
    predictor: TokenPredictor,
    length_log_probs: Any,
    *,
    options: DecodingOptions,
    length_bounds: Any = None,
    keywords: Any = None,
) -> dict[str, Any]:
    """Writes captions.

    Args:
        predictor: The model; it sees `options.num_candidates` of each image, or
            fewer where no more lengths are possible.
        length_log_probs: float, (images, max_caption_tokens + 1): of each
            number of tokens its log-probability; 0 tokens are never written.
        options: How to decode.
        length_bounds: int32, (2,) or (images, 2), the fewest and most tokens.
        keywords: int32, (images, keywords, tokens), padding after the tokens:
            each stands in the caption.

    Returns:
        Dictionary, of each image its `options.num_captions` captions, the best
        first:
        `token_ids`: int32, (images, num_captions, max_caption_tokens + 2),
        `[CLS]` … `[SEP]` and padding;
        `token_scores`: float32, (images, num_captions, max_caption_tokens + 2),
        log-probability of each token when it was written, 0 elsewhere;
        `score`: float32, (images, num_captions), their mean over the tokens.
    """
    special = predictor.special
    log_probs = ops.cast(length_log_probs, "float32")
    if length_bounds is not None:
        log_probs = restrict_lengths(log_probs, length_bounds)
    if keywords is not None:
        least = ops.sum(keyword_sizes(keywords, special), axis=-1)
        most = ops.full_like(least, log_probs.shape[-1])
        bounds = ops.stack([least, most], axis=-1)
        log_probs = restrict_lengths(log_probs, bounds)
    canvas = blank_canvas(candidate_lengths(log_probs, options), special)
    if keywords is not None:
        canvas = place_keywords(predictor, canvas, keywords)
    width = log_probs.shape[-1] + 1
    draws = _mbr_draws(options, width) or _draws(options)
    written = write_masks(predictor, canvas, options, draws=draws)
    is_judged = in_frame(canvas.token_ids, special)
    return choose_captions(
        predictor, written, is_judged, options=options, width=width
    )


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
        length_log_probs: float, (images, max_caption_tokens + 1).
        templates: int32, (images, tokens): tokens, which stay; masks, for one
            token each; `GAP`, for one or more tokens; padding at the end.
        options: How to decode; `options.num_candidates` canvases are tried for
            each template, none of them drawn for minimum Bayes risk.

    Returns:
        The dictionary of `mask_predict`. Tokens that were given have a score
        of 0 and are no part of `score`.
    """
    options = dataclasses.replace(options, mbr_samples=0)
    canvas = expand_templates(
        templates,
        ops.cast(length_log_probs, "float32"),
        special=predictor.special,
        candidates=options.num_candidates,
    )
    written = write_masks(predictor, canvas, options, draws=_draws(options))
    return choose_captions(
        predictor,
        written,
        ops.equal(canvas.token_ids, predictor.special.mask_token_id),
        options=options,
        width=length_log_probs.shape[-1] + 1,
    )


def draw_captions(
    predictor: TokenPredictor,
    length_log_probs: Any,
    *,
    options: DecodingOptions,
) -> Any:
    """Draws captions of drawn lengths, to learn from.

    Args:
        predictor: The model; it sees `options.num_captions` of each image.
        length_log_probs: float, (images, max_caption_tokens + 1).
        options: How to decode: all of `options.num_captions` are kept;
            `options.temperature` is not the number 0, `options.seed` a pair.

    Returns:
        int32, (images, num_captions, width), as wide as the longest needs.
    """
    lengths = draw_lengths(length_log_probs, options)
    canvas = blank_canvas(lengths, predictor.special)
    return write_masks(
        predictor, canvas, options, draws=_draws(options)
    ).token_ids


def fill_masks(
    predictor: TokenPredictor, token_ids: Any, *, options: DecodingOptions
) -> Any:
    """Writes the masks of captions that are whole but for them.

    Args:
        predictor: The model; it sees one candidate of each image.
        token_ids: int32, (images, width), `[CLS]` … `[SEP]` and padding.
        options: How to write.

    Returns:
        int32, (images, width).
    """
    token_ids = token_ids[:, None]
    canvas = Canvas(
        token_ids,
        scores=ops.zeros(ops.shape(token_ids), "float32"),
        is_start=ops.equal(token_ids, predictor.special.mask_token_id),
    )
    written = write_masks(predictor, canvas, options, draws=_draws(options))
    return written.token_ids[:, 0]


def _draws(options: DecodingOptions) -> Draws | None:
    if not options.is_sampling:
        return None
    return Draws(options.temperature, options.top_p, options.seed)


def _mbr_draws(options: DecodingOptions, width: int) -> Draws | None:
    """Draws for minimum Bayes risk, after candidates that are the likeliest.

    They depend on the image alone, so that its caption does not change with
    the other images of a batch.
    """
    if not options.uses_mbr:
        return None
    samples = options.mbr_samples
    likeliest = options.num_candidates - samples
    temperature = [_LIKELIEST] * likeliest + [_MBR_TEMPERATURE] * samples
    return Draws(
        ops.reshape(ops.array(temperature, "float32"), (1, -1, 1, 1)),
        _MBR_TOP_P,
        seed=0,
        shared_width=width,
    )
