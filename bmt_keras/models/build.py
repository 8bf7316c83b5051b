"""From settings to models."""

import keras

from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.layers import (
    BimodalFusion,
    CrossAttentionFusion,
    TokenMasking,
)
from bmt_keras.models.albert_checkpoint import AlbertCheckpoint
from bmt_keras.models.bimodal_masked_lm import BimodalMaskedLM
from bmt_keras.models.image_encoders import (
    SMALL_CNN,
    cut_application,
    pool_cells,
    small_cnn,
)
from bmt_keras.models.model_copy import dtype_policy
from bmt_keras.models.pretrained_head import load_pretrained_head
from bmt_keras.models.text_encoders import build_albert, load_albert
from bmt_keras.settings import Settings


def build_image_encoder(settings: Settings) -> keras.Model:
    """Builds the model from pixels to image embeddings.

    Args:
        settings: The image side is read.

    Returns:
        A model from (batch, height, width, 3) in [0, 255] to (batch, ...).

    Raises:
        InputError: The settings name no such model, a frozen model without
            weights, or pools that the embedding has not.
    """
    if settings.image_model == SMALL_CNN:
        if not settings.train_image_model:
            raise InputError(
                "`image_model` SmallCNN has no pretrained weights and must be "
                "trained along. Received: train_image_model=False."
            )
        with dtype_policy(settings.dtype_policy):
            return small_cnn(settings.image_height, settings.image_width)
    trained = settings.train_image_model
    # A frozen one embeds photos once, in `image_precision`.
    with dtype_policy(settings.dtype_policy if trained else "float32"):
        encoder = cut_application(
            settings.image_model,
            settings.image_layer,
            height=settings.image_height,
            width=settings.image_width,
            weights=settings.image_weights,
        )
        if settings.image_pooling > 1:
            encoder = pool_cells(encoder, settings.image_pooling)
    encoder.trainable = trained
    return encoder


def build_masked_lm(
    settings: Settings,
    tokenizer: CaptionTokenizer,
    *,
    image_encoder: keras.Model,
) -> BimodalMaskedLM:
    """Builds the captioner's model.

    Args:
        settings: The text side, fusion and loss are read.
        tokenizer: Its vocabulary is the model's.
        image_encoder: Becomes part of the model if it is trained along, else
            only its embeddings' shape is taken.

    Returns:
        The model, not compiled.

    Raises:
        InputError: The pretrained ALBERT cannot be loaded, has no head where
            one is asked for, or does not fit the vocabulary or the length.
    """
    with dtype_policy(settings.dtype_policy):
        checkpoint = _load_checkpoint(settings, tokenizer)
        return _build(settings, tokenizer, checkpoint, image_encoder)


def _build(
    settings: Settings,
    tokenizer: CaptionTokenizer,
    checkpoint: AlbertCheckpoint,
    image_encoder: keras.Model,
) -> BimodalMaskedLM:
    text_encoder = checkpoint.encoder
    text_encoder.trainable = settings.train_text_model
    inside = settings.train_image_model
    model = BimodalMaskedLM(
        text_encoder,
        _build_fusion(settings, text_encoder),
        masking=TokenMasking(
            tokenizer.mask_id,
            tokenizer.special_token_ids,
            rate=settings.mask_rate or None,
            seed=settings.seed,
            name="token_masking",
        ),
        image_encoder=image_encoder if inside else None,
        image_embedding_shape=(
            None if inside else tuple(image_encoder.output.shape[1:])
        ),
        max_caption_length=(
            settings.max_length - 2 if settings.predict_length else None
        ),
        label_smoothing=settings.label_smoothing,
        length_loss_weight=settings.length_loss_weight,
        concept_units=settings.concept_units or None,
        concept_weight=settings.concept_weight,
        rdrop_weight=settings.rdrop_weight,
        name="bimodal_masked_lm",
    )
    if checkpoint.head is not None:
        load_pretrained_head(model, checkpoint.head)
    return model


def _load_checkpoint(
    settings: Settings, tokenizer: CaptionTokenizer
) -> AlbertCheckpoint:
    """Gives ALBERT, with a head if and only if the model is to take it."""
    if settings.text_weights == "random":
        encoder = build_albert(
            vocabulary_size=tokenizer.vocabulary_size,
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            embedding_dim=settings.embedding_dim,
            hidden_dim=settings.hidden_dim,
            intermediate_dim=settings.intermediate_dim,
            max_length=settings.max_positions,
            dropout=settings.text_dropout,
        )
        return AlbertCheckpoint(encoder, None)
    checkpoint = load_albert(
        settings.text_weights, dropout=settings.text_dropout
    )
    _check_fit(settings, tokenizer, checkpoint)
    if settings.pretrained_head:
        return checkpoint
    return AlbertCheckpoint(checkpoint.encoder, None)


def _check_fit(
    settings: Settings,
    tokenizer: CaptionTokenizer,
    checkpoint: AlbertCheckpoint,
) -> None:
    name = f"The pretrained ALBERT {settings.text_weights!r}"
    encoder = checkpoint.encoder
    if encoder.vocabulary_size != tokenizer.vocabulary_size:
        raise InputError(
            f"{name} has {encoder.vocabulary_size} tokens, the vocabulary has "
            f"{tokenizer.vocabulary_size}; give its own spiece.model by "
            "--vocabulary."
        )
    if encoder.max_sequence_length < settings.max_length:
        raise InputError(
            f"{name} has {encoder.max_sequence_length} positions, fewer than "
            f"`max_length`. Received: max_length={settings.max_length}."
        )
    if settings.pretrained_head and checkpoint.head is None:
        raise InputError(
            f"{name} has no masked-LM head (`predictions.*`); give a "
            "checkpoint that has one, or --no-pretrained-head."
        )


def _build_fusion(
    settings: Settings, text_encoder: keras.Model
) -> BimodalFusion | CrossAttentionFusion:
    if settings.fusion == "concat":
        # As ALBERT's own layers, among them its head, are initialised.
        return BimodalFusion(
            text_encoder.embedding_dim,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="fusion",
        )
    # A fresh ALBERT has nothing to keep that closed gates would protect.
    is_fresh = settings.text_weights == "random"
    return CrossAttentionFusion(
        settings.fusion_blocks,
        settings.fusion_heads,
        intermediate_dim=text_encoder.intermediate_dim,
        dropout=settings.fusion_dropout,
        image_blocks=settings.image_blocks,
        image_dropout=settings.image_dropout,
        final_norm=is_fresh,
        gate_initializer=None if is_fresh else "zeros",
        name="fusion",
    )
