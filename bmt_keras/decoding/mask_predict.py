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
from bmt_keras.decoding.passes import write_masks
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
        Of each image its captions, the best first. `token_ids`: int32, (images,
        num_captions, max_caption_tokens + 2), `[CLS]` … `[SEP]` and padding;
        `token_scores`: float32, likewise, log-probability of each token when
        it was written, 0 elsewhere; `score`: float32, (images, num_captions),
        their mean over the tokens.
    """
    special = predictor.special
    log_probs = ops.cast(length_log_probs, "float32")
    if length_bounds is not None:
        log_probs = restrict_lengths(log_probs, length_bounds)
    if keywords is not None:
        least = ops.sum(keyword_sizes(keywords, special), axis=-1)
        most = ops.full_like(least, log_probs.shape[-1])
        log_probs = restrict_lengths(log_probs, ops.stack([least, most], -1))
    canvas = blank_canvas(candidate_lengths(log_probs, options), special)
    if keywords is not None:
        canvas = place_keywords(predictor, canvas, keywords)
    width = log_probs.shape[-1] + 1
    if options.uses_mbr:
        # Equal noise for all images: a caption is not to change with its batch.
        written = write_masks(
            predictor, canvas, _mbr_draws(options), shared_width=width
        )
    else:
        written = write_masks(predictor, canvas, options)
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

    Of each template `options.num_candidates` canvases are tried, none of them
    drawn for minimum Bayes risk.

    Args:
        predictor: The model.
        length_log_probs: float, (images, max_caption_tokens + 1).
        templates: int32, (images, tokens): tokens, which stay; masks, for one
            token each; `GAP`, for one or more tokens; padding at the end.
        options: How to decode.

    Returns:
        The dictionary of `mask_predict`. Tokens that were given have a score
        of 0 and are no part of `score`.
    """
    options = dataclasses.replace(options, mbr_samples=0)
    special, width = predictor.special, length_log_probs.shape[-1] + 1
    log_probs = ops.cast(length_log_probs, "float32")
    canvas = expand_templates(
        templates, log_probs, special=special, candidates=options.num_candidates
    )
    written = write_masks(predictor, canvas, options)
    is_judged = ops.equal(canvas.token_ids, special.mask_token_id)
    return choose_captions(
        predictor, written, is_judged, options=options, width=width
    )


def draw_captions(
    predictor: TokenPredictor,
    length_log_probs: Any,
    *,
    options: DecodingOptions,
) -> Any:
    """Draws captions of drawn lengths, to learn from.

    `options.temperature` must not be the number 0, `options.seed` a pair.

    Returns:
        int32, (images, num_captions, width), as wide as the longest needs.
    """
    lengths = draw_lengths(length_log_probs, options)
    canvas = blank_canvas(lengths, predictor.special)
    return write_masks(predictor, canvas, options).token_ids


def fill_masks(
    predictor: TokenPredictor, token_ids: Any, *, options: DecodingOptions
) -> Any:
    """Writes the masks of captions that are whole but for them.

    Of `token_ids`, int32, (images, width), `[CLS]` … `[SEP]` and padding, the
    same without masks.
    """
    token_ids = token_ids[:, None]  # one candidate
    scores = ops.zeros(ops.shape(token_ids), "float32")
    is_mask = ops.equal(token_ids, predictor.special.mask_token_id)
    canvas = Canvas(token_ids, scores, is_start=is_mask)
    return write_masks(predictor, canvas, options).token_ids[:, 0]


def _mbr_draws(options: DecodingOptions) -> DecodingOptions:
    """Draws for minimum Bayes risk, after candidates that are the likeliest."""
    samples = options.mbr_samples
    likeliest = options.num_candidates - samples
    temperature: Any = [_LIKELIEST] * likeliest + [_MBR_TEMPERATURE] * samples
    temperature = ops.reshape(ops.array(temperature, "float32"), (1, -1, 1, 1))
    return dataclasses.replace(
        options, temperature=temperature, top_p=_MBR_TOP_P, seed=0
    )
