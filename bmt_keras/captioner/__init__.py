"""The captioner: model, tokenizer and image preprocessing as one object."""

from bmt_keras.captioner.captioner import Captioner
from bmt_keras.captioner.photos import Image
from bmt_keras.captioner.results import Caption, Score

__all__ = ["Caption", "Captioner", "Image", "Score"]
