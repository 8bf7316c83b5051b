"""The captioner: model, tokenizer and image preprocessing as one object."""

from bmt_keras.captioner.captioner import Captioner
from bmt_keras.captioner.captions import Calibration, Caption, Score

__all__ = ["Calibration", "Caption", "Captioner", "Score"]
