"""Decoding of a masked language model: from a blank canvas to captions."""

from bmt_keras.decoding.canvas import SpecialTokens
from bmt_keras.decoding.guessing import guess_tokens, mask_candidates
from bmt_keras.decoding.keywords import place_keywords
from bmt_keras.decoding.lengths import restrict_lengths
from bmt_keras.decoding.mask_predict import (
    draw_captions,
    fill_masks,
    fill_templates,
    mask_predict,
)
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.overlap import FoundTokens
from bmt_keras.decoding.predictor import TokenPredictor
from bmt_keras.decoding.scoring import score_tokens
from bmt_keras.decoding.templates import GAP

__all__ = [
    "GAP",
    "DecodingOptions",
    "FoundTokens",
    "SpecialTokens",
    "TokenPredictor",
    "draw_captions",
    "fill_masks",
    "fill_templates",
    "guess_tokens",
    "mask_candidates",
    "mask_predict",
    "place_keywords",
    "restrict_lengths",
    "score_tokens",
]
