"""Models assembled from the layers."""

from bmt_keras.models.albert_checkpoint import (
    load_albert,
    load_pretrained_head,
)
from bmt_keras.models.averaging_adamw import AveragingAdamW
from bmt_keras.models.batch_norm_folding import fold_batch_norm
from bmt_keras.models.bimodal_masked_lm import BimodalMaskedLM
from bmt_keras.models.build import build_image_tower, build_masked_lm
from bmt_keras.models.image_towers import cut_application, small_cnn
from bmt_keras.models.precision import set_matmul_precision

__all__ = [
    "AveragingAdamW",
    "BimodalMaskedLM",
    "build_image_tower",
    "build_masked_lm",
    "cut_application",
    "fold_batch_norm",
    "load_albert",
    "load_pretrained_head",
    "set_matmul_precision",
    "small_cnn",
]
