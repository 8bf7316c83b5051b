"""Decoding of a masked language model: from a blank canvas to captions.

Nothing here knows a model, only a callable that gives logits. Captions are
(images, candidates, width) until one is chosen, with `[CLS]` and `[SEP]`.
"""

from bmt_keras.decoding.constraints import GAP
from bmt_keras.decoding.mask_predict import (
    draw_captions,
    fill_masks,
    fill_templates,
    mask_predict,
)
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.predictor import (
    ExpectedTokens,
    TokenPredictor,
    guess_tokens,
    mask_candidates,
    score_tokens,
)

__all__ = [
    "GAP",
    "DecodingOptions",
    "ExpectedTokens",
    "TokenPredictor",
    "draw_captions",
    "fill_masks",
    "fill_templates",
    "guess_tokens",
    "mask_candidates",
    "mask_predict",
    "score_tokens",
]
