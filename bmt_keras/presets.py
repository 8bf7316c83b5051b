"""Presets: settings that belong together, by name."""

from collections.abc import Mapping
from typing import Any

from bmt_keras.errors import InputError
from bmt_keras.settings import Settings

_FROZEN_INCEPTION = Settings().replace(
    image_model="InceptionV3",
    image_weights="imagenet",
    image_trainable=False,
    # Its own size: (8, 8, 2048) cells, if it is not cut.
    image_height=299,
    image_width=299,
)
_PRETRAINED_ALBERT = {
    "text_weights": "hf://albert/albert-base-v2",
    "text_num_layers": 12,
    "text_num_heads": 12,
    "text_embedding_dim": 128,
    "text_hidden_dim": 768,
    "text_intermediate_dim": 3072,
    "max_positions": 512,
}
# How captions of real photos are learned and written.
_PHOTO_CAPTIONS = {
    "sequence_length": 32,
    "fusion_num_layers": 3,
    "drop_final_period": True,
    "mirror": True,
    "label_smoothing": 0.1,
    "ema_momentum": 0.995,
    "warmup_share": 0.06,
    "weight_decay": 0.01,
    "passes": 10,
    "length_candidates": 5,
}

PRESETS: Mapping[str, Settings] = {
    "sample": Settings(),
    "notebook": _FROZEN_INCEPTION.replace(
        **_PRETRAINED_ALBERT,
        # The notebook's own odd size: (2, 2, 2048) cells.
        image_height=129,
        image_width=128,
        image_like_opencv=True,  # as the notebook read photos
        text_trainable=False,
        sequence_length=64,
        fusion="concat",
        predict_length=False,
        mask_rate=0.15,
        batch_size=8,
        bucket_width=0,
        shuffle_buffer=10_000,
        epochs=300,
        steps_per_epoch=250,
        learning_rate=1e-5,
        schedule="constant",
        adam_epsilon=1e-8,  # the notebook's, not Keras' default
        checkpoint_steps=0,
        checkpoint_epochs=5,
        keep_checkpoints=5,
    ),
    "coco": _FROZEN_INCEPTION.replace(
        **_PRETRAINED_ALBERT,
        **_PHOTO_CAPTIONS,
        pretrained_head=True,
        fusion_num_heads=12,
        fusion_dropout=0.1,
        image_dropout=0.1,
        epochs=20,
        learning_rate=1e-4,
    ),
    "small": _FROZEN_INCEPTION.replace(
        **_PHOTO_CAPTIONS,
        # (8, 8, 1280), averaged to (4, 4, 1280): a quarter of the cache.
        image_layer="mixed8",
        image_pooling=2,
        # Tokens that no caption uses would only grow the head.
        prune_vocabulary=True,
        text_num_layers=1,
        text_embedding_dim=256,
        text_hidden_dim=256,
        text_intermediate_dim=1024,
        text_dropout=0.1,
        fusion_dropout=0.2,
        image_dropout=0.2,
        concept_dim=512,
        concept_weight=0.55,
        batch_size=80,
        epochs=8,
    ),
}


def resolve_settings(preset: str, overrides: Mapping[str, Any]) -> Settings:
    """Gives a preset with some options set otherwise.

    Args:
        preset: Name of a preset.
        overrides: Values by option name, such as `image_height`; None keeps
            the preset's.

    Raises:
        InputError: There is no such preset, or a value is out of range.
    """
    if preset not in PRESETS:
        raise InputError(
            f"`preset` must be one of {', '.join(PRESETS)}. Received: {preset}."
        )
    given = {k: v for k, v in overrides.items() if v is not None}
    return PRESETS[preset].replace(**given)
