"""From settings to models."""

from typing import Any

import keras
import keras_hub

from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.layers import BimodalFusion, CrossAttentionFusion, TokenMasking
from bmt_keras.models.albert_checkpoint import AlbertCheckpoint, load_albert
from bmt_keras.models.bimodal_masked_lm import BimodalMaskedLM
from bmt_keras.models.image_towers import (
    SMALL_CNN,
    cut_application,
    pool_cells,
    small_cnn,
)
from bmt_keras.models.model_copy import dtype_policy
from bmt_keras.models.pretrained_head import load_pretrained_head
from bmt_keras.settings import Settings


def build_albert(
    *,
    vocabulary_size: int,
    num_layers: int,
    num_heads: int,
    embedding_dim: int,
    hidden_dim: int,
    intermediate_dim: int,
    sequence_length: int,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds an ALBERT with fresh weights (Lan et al. 2019, arXiv 1909.11942).

    Args:
        vocabulary_size: Number of tokens.
        num_layers: Number of layers, all sharing one set of weights.
        num_heads: Attention heads; an `InputError` unless they divide the width
            of the states.
        embedding_dim: Width of the token embedding.
        hidden_dim: Width of the states.
        intermediate_dim: Width of the feed-forward.
        sequence_length: Longest sequence in tokens.
        dropout: Dropout rate.

    Returns:
        A `keras_hub.models.AlbertBackbone`.
    """
    if hidden_dim % num_heads:
        raise InputError(
            "`num_heads` must divide `hidden_dim`. Received: "
            f"num_heads={num_heads}, hidden_dim={hidden_dim}."
        )
    return keras_hub.models.AlbertBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=num_layers,
        num_heads=num_heads,
        embedding_dim=embedding_dim,
        hidden_dim=hidden_dim,
        intermediate_dim=intermediate_dim,
        max_sequence_length=sequence_length,
        dropout=dropout,
        name="text_tower",
    )


def build_image_tower(settings: Settings) -> keras.Model:
    """Builds the model from pixels to image embeddings.

    Returns:
        A model from (batch, height, width, 3) in [0, 255] to (batch, ...).

    Raises:
        InputError: The settings name no such model, a frozen model without
            weights, or pools that the embedding has not.
    """
    image, policy = settings.image, settings.optimization.dtype_policy
    if image.model == SMALL_CNN:
        if not image.trainable:
            raise InputError(
                "`image_model` SmallCNN has no pretrained weights and must be "
                "trained along. Received: image_trainable=False."
            )
        with dtype_policy(policy):
            return small_cnn(image.height, image.width)
    # A frozen one embeds images once, in `image_precision`.
    with dtype_policy(policy if image.trainable else "float32"):
        image_tower = cut_application(
            image.model,
            image.layer,
            height=image.height,
            width=image.width,
            weights=image.weights,
        )
        if image.pooling > 1:
            image_tower = pool_cells(image_tower, image.pooling)
    image_tower.trainable = image.trainable
    return image_tower


def build_masked_lm(
    settings: Settings, tokenizer: CaptionTokenizer, *, image_tower: keras.Model
) -> BimodalMaskedLM:
    """Builds the captioner's model.

    Args:
        settings: The text side, fusion and loss are read.
        tokenizer: Its vocabulary is the model's.
        image_tower: Becomes part of the model if it is trained along, else
            only its embeddings' shape is taken.

    Returns:
        The model, not compiled.

    Raises:
        InputError: The pretrained ALBERT cannot be loaded, has no head where
            one is asked for, or does not fit the vocabulary or the length.
    """
    with dtype_policy(settings.optimization.dtype_policy):
        checkpoint = _load_checkpoint(settings, tokenizer)
        return _assemble(settings, tokenizer, checkpoint, image_tower)


def _assemble(
    settings: Settings,
    tokenizer: CaptionTokenizer,
    checkpoint: AlbertCheckpoint,
    image_tower: keras.Model,
) -> BimodalMaskedLM:
    text_tower, fusion = checkpoint.text_tower, settings.fusion
    text_tower.trainable = settings.text.trainable
    # The model trains it in no case: a summary shall count it as frozen.
    text_tower.pooled_dense.trainable = False
    if settings.image.trainable:
        image: dict[str, Any] = {"image_tower": image_tower}
    else:
        image = {"image_embedding_shape": image_tower.output.shape[1:]}
    longest = settings.text.max_caption_tokens
    model = BimodalMaskedLM(
        text_tower,
        _build_fusion(settings, text_tower),
        masking=TokenMasking(
            tokenizer.mask_token_id,
            tokenizer.special_token_ids,
            # A rate of 0 stands for one of each caption's own.
            rate=settings.batches.mask_rate or None,
            seed=settings.optimization.seed,
            name="token_masking",
        ),
        **image,
        max_caption_tokens=longest if fusion.predict_length else None,
        label_smoothing=settings.optimization.label_smoothing,
        concept_dim=fusion.concept_dim or None,
        concept_weight=fusion.concept_weight,
        name="bimodal_masked_lm",
    )
    if checkpoint.head is not None:
        load_pretrained_head(model, checkpoint.head)
    return model


def _load_checkpoint(
    settings: Settings, tokenizer: CaptionTokenizer
) -> AlbertCheckpoint:
    """Gives ALBERT, with a head if and only if the model is to take it."""
    text = settings.text
    if text.weights == "random":
        text_tower = build_albert(
            vocabulary_size=tokenizer.vocabulary_size,
            num_layers=text.num_layers,
            num_heads=text.num_heads,
            embedding_dim=text.embedding_dim,
            hidden_dim=text.hidden_dim,
            intermediate_dim=text.intermediate_dim,
            sequence_length=text.max_positions,
            dropout=text.dropout,
        )
        return AlbertCheckpoint(text_tower, None)
    checkpoint = load_albert(text.weights, dropout=text.dropout)
    text_tower = checkpoint.text_tower
    name = f"The pretrained ALBERT {text.weights!r}"
    if text_tower.vocabulary_size != tokenizer.vocabulary_size:
        raise InputError(
            f"{name} has {text_tower.vocabulary_size} tokens, the vocabulary "
            f"has {tokenizer.vocabulary_size}; give its own spiece.model by "
            "--vocabulary."
        )
    if text_tower.max_sequence_length < text.sequence_length:
        raise InputError(
            f"{name} has {text_tower.max_sequence_length} positions, fewer "
            "than `sequence_length`. Received: sequence_length="
            f"{text.sequence_length}."
        )
    # A head that the model is not to take is as good as none.
    if not text.pretrained_head:
        return AlbertCheckpoint(text_tower, None)
    if checkpoint.head is None:
        raise InputError(
            f"{name} has no masked-LM head (`predictions.*`); give a "
            "checkpoint that has one, or --no-pretrained-head."
        )
    return checkpoint


def _build_fusion(
    settings: Settings, text_tower: keras.Model
) -> BimodalFusion | CrossAttentionFusion:
    if settings.fusion.kind == "concat":
        # As ALBERT's own layers, among them its head, are initialised.
        return BimodalFusion(
            text_tower.embedding_dim,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="fusion",
        )
    # A fresh ALBERT has nothing to keep that closed gates would protect.
    is_fresh = settings.text.weights == "random"
    return CrossAttentionFusion(
        num_layers=settings.fusion.num_layers,
        num_heads=settings.fusion.num_heads,
        intermediate_dim=text_tower.intermediate_dim,
        dropout=settings.fusion.dropout,
        image_dropout=settings.fusion.image_dropout,
        final_norm=is_fresh,
        gate_initializer=None if is_fresh else "zeros",
        name="fusion",
    )
