"""Models assembled from the layers."""

from bmt_keras.models.bimodal_masked_lm import BimodalMaskedLM
from bmt_keras.models.build import build_image_encoder, build_masked_lm
from bmt_keras.models.image_encoders import cut_application, small_cnn
from bmt_keras.models.text_encoders import build_albert, load_albert

__all__ = [
    "BimodalMaskedLM",
    "build_albert",
    "build_image_encoder",
    "build_masked_lm",
    "cut_application",
    "load_albert",
    "small_cnn",
]
