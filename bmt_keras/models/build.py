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
from bmt_keras.models.image_towers import (
    SMALL_CNN,
    cut_application,
    pool_cells,
    small_cnn,
)
from bmt_keras.models.model_copy import dtype_policy
from bmt_keras.models.pretrained_head import load_pretrained_head
from bmt_keras.models.text_towers import build_albert, load_albert
from bmt_keras.settings import Settings


def build_image_tower(settings: Settings) -> keras.Model:
    """Builds the model from pixels to image embeddings.

    Args:
        settings: The image side is read.

    Returns:
        A model from (batch, height, width, 3) in [0, 255] to (batch, ...).

    Raises:
        InputError: The settings name no such model, a frozen model without
            weights, or pools that the embedding has not.
    """
    if settings.image.model == SMALL_CNN:
        if not settings.image.trainable:
            raise InputError(
                "`image_model` SmallCNN has no pretrained weights and must be "
                "trained along. Received: image_trainable=False."
            )
        with dtype_policy(settings.optimization.dtype_policy):
            return small_cnn(settings.image.height, settings.image.width)
    trained = settings.image.trainable
    # A frozen one embeds images once, in `image_precision`.
    with dtype_policy(
        settings.optimization.dtype_policy if trained else "float32"
    ):
        image_tower = cut_application(
            settings.image.model,
            settings.image.layer,
            height=settings.image.height,
            width=settings.image.width,
            weights=settings.image.weights,
        )
        if settings.image.pooling > 1:
            image_tower = pool_cells(image_tower, settings.image.pooling)
    image_tower.trainable = trained
    return image_tower


def build_masked_lm(
    settings: Settings,
    tokenizer: CaptionTokenizer,
    *,
    image_tower: keras.Model,
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
        return _build(settings, tokenizer, checkpoint, image_tower)


def _build(
    settings: Settings,
    tokenizer: CaptionTokenizer,
    checkpoint: AlbertCheckpoint,
    image_tower: keras.Model,
) -> BimodalMaskedLM:
    text_tower = checkpoint.text_tower
    text_tower.trainable = settings.text.trainable
    inside = settings.image.trainable
    model = BimodalMaskedLM(
        text_tower,
        _build_fusion(settings, text_tower),
        masking=TokenMasking(
            tokenizer.mask_token_id,
            tokenizer.special_token_ids,
            rate=settings.batches.mask_rate or None,
            seed=settings.optimization.seed,
            name="token_masking",
        ),
        image_tower=image_tower if inside else None,
        image_embedding_shape=(
            None if inside else tuple(image_tower.output.shape[1:])
        ),
        max_caption_tokens=(
            settings.text.sequence_length - 2
            if settings.fusion.predict_length
            else None
        ),
        label_smoothing=settings.optimization.label_smoothing,
        length_loss_weight=settings.optimization.length_loss_weight,
        concept_dim=settings.fusion.concept_dim or None,
        concept_weight=settings.fusion.concept_weight,
        name="bimodal_masked_lm",
    )
    if checkpoint.head is not None:
        load_pretrained_head(model, checkpoint.head)
    return model


def _load_checkpoint(
    settings: Settings, tokenizer: CaptionTokenizer
) -> AlbertCheckpoint:
    """Gives ALBERT, with a head if and only if the model is to take it."""
    if settings.text.weights == "random":
        text_tower = build_albert(
            vocabulary_size=tokenizer.vocabulary_size,
            num_layers=settings.text.num_layers,
            num_heads=settings.text.num_heads,
            embedding_dim=settings.text.embedding_dim,
            hidden_dim=settings.text.hidden_dim,
            intermediate_dim=settings.text.intermediate_dim,
            sequence_length=settings.text.max_positions,
            dropout=settings.text.dropout,
        )
        return AlbertCheckpoint(text_tower, None)
    checkpoint = load_albert(
        settings.text.weights, dropout=settings.text.dropout
    )
    _check_fit(settings, tokenizer, checkpoint)
    if settings.text.pretrained_head:
        return checkpoint
    return AlbertCheckpoint(checkpoint.text_tower, None)


def _check_fit(
    settings: Settings,
    tokenizer: CaptionTokenizer,
    checkpoint: AlbertCheckpoint,
) -> None:
    name = f"The pretrained ALBERT {settings.text.weights!r}"
    text_tower = checkpoint.text_tower
    if text_tower.vocabulary_size != tokenizer.vocabulary_size:
        raise InputError(
            f"{name} has {text_tower.vocabulary_size} tokens, the vocabulary "
            f"has {tokenizer.vocabulary_size}; give its own spiece.model by "
            "--vocabulary."
        )
    if text_tower.max_sequence_length < settings.text.sequence_length:
        raise InputError(
            f"{name} has {text_tower.max_sequence_length} positions, fewer "
            "than `sequence_length`. Received: sequence_length="
            f"{settings.text.sequence_length}."
        )
    if settings.text.pretrained_head and checkpoint.head is None:
        raise InputError(
            f"{name} has no masked-LM head (`predictions.*`); give a "
            "checkpoint that has one, or --no-pretrained-head."
        )


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
