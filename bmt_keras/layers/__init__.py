"""Keras layers that join image embeddings and a masked language model."""

from bmt_keras.layers.application_preprocessing import ApplicationPreprocessing
from bmt_keras.layers.bimodal_fusion import BimodalFusion
from bmt_keras.layers.concept_head import ConceptHead
from bmt_keras.layers.cross_attention_block import (
    CrossAttentionBlock,
    ImageAttention,
)
from bmt_keras.layers.cross_attention_fusion import CrossAttentionFusion
from bmt_keras.layers.image_embedding_repeat import ImageEmbeddingRepeat
from bmt_keras.layers.length_head import LengthHead
from bmt_keras.layers.masked_token_head import MaskedTokenHead
from bmt_keras.layers.masked_token_loss import MaskedTokenLoss
from bmt_keras.layers.parts import tanh_gelu
from bmt_keras.layers.relative_self_attention import RelativeSelfAttention
from bmt_keras.layers.token_masking import TokenMasking

__all__ = [
    "ApplicationPreprocessing",
    "BimodalFusion",
    "ConceptHead",
    "CrossAttentionBlock",
    "CrossAttentionFusion",
    "ImageAttention",
    "ImageEmbeddingRepeat",
    "LengthHead",
    "MaskedTokenHead",
    "MaskedTokenLoss",
    "RelativeSelfAttention",
    "TokenMasking",
    "tanh_gelu",
]
