"""From settings to models."""

from typing import Any

import keras
import keras_hub

from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.layers import BimodalFusion, CrossAttentionFusion, TokenMasking
from bmt_keras.models.albert_checkpoint import (
    load_albert,
    load_pretrained_head,
)
from bmt_keras.models.bimodal_masked_lm import BimodalMaskedLM
from bmt_keras.models.image_towers import (
    SMALL_CNN,
    cut_application,
    small_cnn,
)
from bmt_keras.models.precision import dtype_policy
from bmt_keras.settings import Settings


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
            pooling=image.pooling,
        )
    image_tower.trainable = image.trainable
    return image_tower


def build_masked_lm(
    settings: Settings, tokenizer: CaptionTokenizer, *, image_tower: keras.Model
) -> BimodalMaskedLM:
    """Builds the captioner's model.

    Args:
        settings: The text side, fusion and loss are read.
        tokenizer: Its vocabulary is the model's.
        image_tower: A part of the model if trained along, else only a shape.

    Returns:
        The model, not compiled.

    Raises:
        InputError: The pretrained ALBERT cannot be loaded, has no head where
            one is asked for, or does not fit the vocabulary or the length.
    """
    text, fusion = settings.text, settings.fusion
    if settings.image.trainable:
        image: dict[str, Any] = {"image_tower": image_tower}
    else:
        image = {"image_embedding_shape": image_tower.output.shape[1:]}
    with dtype_policy(settings.optimization.dtype_policy):
        text_tower = _build_text_tower(settings, tokenizer)
        text_tower.trainable = text.trainable
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
            max_caption_tokens=(
                text.max_caption_tokens if fusion.predict_length else None
            ),
            label_smoothing=settings.optimization.label_smoothing,
            concept_dim=fusion.concept_dim or None,
            concept_weight=fusion.concept_weight,
            name="bimodal_masked_lm",
        )
    if text.pretrained_head and text.weights != "random":
        load_pretrained_head(model, text.weights)
    return model


def _build_text_tower(
    settings: Settings, tokenizer: CaptionTokenizer
) -> keras.Model:
    text = settings.text
    if text.weights == "random":
        return keras_hub.models.AlbertBackbone(
            vocabulary_size=tokenizer.vocabulary_size,
            num_layers=text.num_layers,
            num_heads=text.num_heads,
            embedding_dim=text.embedding_dim,
            hidden_dim=text.hidden_dim,
            intermediate_dim=text.intermediate_dim,
            max_sequence_length=text.max_positions,
            dropout=text.dropout,
            name="text_tower",
        )
    text_tower = load_albert(text.weights, dropout=text.dropout)
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
    return text_tower


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
