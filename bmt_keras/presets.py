"""Presets: settings that belong together, by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bmt_keras.errors import InputError
from bmt_keras.settings import Settings

_NOTEBOOK = Settings(
    image_model="InceptionV3",
    image_weights="imagenet",
    image_height=129,
    image_width=128,
    train_image_model=False,
    text_weights="albert_base_en_uncased",
    train_text_model=False,
    num_layers=12,
    num_heads=12,
    embedding_dim=128,
    hidden_dim=768,
    intermediate_dim=3072,
    max_length=64,
    max_positions=512,
    fusion="concat",
    predict_length=False,
    mask_rate=0.15,
    epochs=300,
    batch_size=8,
    learning_rate=1e-5,
    schedule="constant",
    adam_epsilon=1e-8,
)

PRESETS: Mapping[str, Settings] = {
    "sample": Settings(),
    "notebook": _NOTEBOOK,
    "coco": dataclasses.replace(
        _NOTEBOOK,
        image_height=299,
        image_width=299,
        train_text_model=True,
        max_length=32,
        fusion="cross_attention",
        fusion_blocks=3,
        fusion_heads=12,
        fusion_dropout=0.1,
        predict_length=True,
        mask_rate=0.0,
        label_smoothing=0.1,
        epochs=20,
        batch_size=64,
        learning_rate=1e-4,
        schedule="cosine",
        weight_decay=0.01,
        passes=8,
    ),
    "small": Settings(
        image_model="InceptionV3",
        image_layer="mixed8",
        image_weights="imagenet",
        image_height=299,
        image_width=299,
        train_image_model=False,
        num_layers=4,
        num_heads=4,
        embedding_dim=128,
        hidden_dim=256,
        intermediate_dim=1024,
        text_dropout=0.1,
        max_length=32,
        fusion_blocks=3,
        fusion_dropout=0.1,
        label_smoothing=0.1,
        epochs=12,
        learning_rate=5e-4,
        weight_decay=0.01,
        passes=8,
    ),
}


def resolve_settings(preset: str, overrides: Mapping[str, Any]) -> Settings:
    """Gives a preset with some fields set otherwise.

    Args:
        preset: Name of a preset.
        overrides: Values by field name; None keeps the preset's.

    Returns:
        The settings.

    Raises:
        InputError: There is no such preset, or a value is out of range.
    """
    if preset not in PRESETS:
        raise InputError(
            f"`preset` must be one of {', '.join(PRESETS)}. Received: {preset}."
        )
    given = {k: v for k, v in overrides.items() if v is not None}
    return dataclasses.replace(PRESETS[preset], **given)
