"""Models assembled from the layers."""

from bmt_keras.models.albert_checkpoint import AlbertCheckpoint, load_albert
from bmt_keras.models.averaging_adamw import AveragingAdamW
from bmt_keras.models.batch_norm_folding import fold_batch_norm
from bmt_keras.models.bimodal_masked_lm import BimodalMaskedLM
from bmt_keras.models.build import (
    build_albert,
    build_image_tower,
    build_masked_lm,
)
from bmt_keras.models.image_towers import cut_application, small_cnn
from bmt_keras.models.matmul_precision import set_matmul_precision
from bmt_keras.models.pretrained_head import (
    MaskedLMHeadWeights,
    load_pretrained_head,
)

__all__ = [
    "AlbertCheckpoint",
    "AveragingAdamW",
    "BimodalMaskedLM",
    "MaskedLMHeadWeights",
    "build_albert",
    "build_image_tower",
    "build_masked_lm",
    "cut_application",
    "fold_batch_norm",
    "load_albert",
    "load_pretrained_head",
    "set_matmul_precision",
    "small_cnn",
]
