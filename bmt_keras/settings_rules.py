"""What settings may be: each by itself, and together."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from bmt_keras.errors import InputError

if TYPE_CHECKING:
    from bmt_keras.settings import Settings

MATMUL_PRECISIONS = ("float32", "bfloat16", "auto")
_CHOICES = {
    "dtype_policy": ("float32", "mixed_bfloat16"),
    "fusion": ("cross_attention", "concat"),
    "image_precision": ("float32", "bfloat16"),
    "objective": ("tokens", "cider", "distill"),
    "order": ("confidence", "left_to_right"),
    "matmul_precision": MATMUL_PRECISIONS,
    "schedule": ("constant", "cosine"),
}
_RULES: tuple[tuple[tuple[str, ...], str, Callable[[float], bool]], ...] = (
    (
        (
            "image_height",
            "image_width",
            "num_layers",
            "num_heads",
            "embedding_dim",
            "hidden_dim",
            "intermediate_dim",
            "fusion_blocks",
            "fusion_heads",
            "epochs",
            "batch_size",
            "passes",
            "length_candidates",
            "checkpoint_epochs",
            "keep_checkpoints",
            "group_size",
            "draw_passes",
            "draw_maskings",
            "min_token_count",
            "image_pooling",
            "gradient_accumulation_steps",
        ),
        "at least 1",
        lambda value: value >= 1,
    ),
    (
        ("mask_rate", "text_dropout", "fusion_dropout", "warmup_share"),
        "in [0, 1]",
        lambda value: 0 <= value <= 1,
    ),
    (("draws",), "at least 2", lambda value: value >= 2),
    (("draw_top_p",), "in (0, 1]", lambda value: 0 < value <= 1),
    (
        ("label_smoothing", "ema_momentum", "image_dropout"),
        "in [0, 1)",
        lambda value: 0 <= value < 1,
    ),
    (
        (
            "learning_rate",
            "cider_learning_rate",
            "adam_epsilon",
            "clipnorm",
        ),
        "positive",
        lambda value: value > 0,
    ),
    (
        (
            "length_loss_weight",
            "rdrop_weight",
            "concept_units",
            "concept_weight",
            "weight_decay",
            "consensus",
            "reference_weight",
            "cider_epochs",
            "image_blocks",
            "captions_per_photo",
            "bucket_width",
            "shuffle_buffer",
            "steps_per_epoch",
            "checkpoint_steps",
            "cached_maskings",
            "redraw_epochs",
            "lora_rank",
            "overlap_weight",
            "consensus_draws",
            "finalists",
        ),
        "not negative",
        lambda value: value >= 0,
    ),
    (("seed",), "in [0, 2**32)", lambda value: 0 <= value < 2**32),
    (
        ("max_length",),
        "at least 3, for a token beside [CLS] and [SEP]",
        lambda value: value >= 3,
    ),
)


def check_settings(settings: "Settings") -> None:
    """Checks the fields, each by itself and then those that must agree.

    Args:
        settings: The settings.

    Raises:
        InputError: A value is out of its range, or two do not go together.
    """
    for name, choices in _CHOICES.items():
        value = getattr(settings, name)
        if value not in choices:
            raise InputError(
                f"`{name}` must be one of {', '.join(choices)}. Received: "
                f"{value}."
            )
    for names, rule, holds in _RULES:
        for name in names:
            value = getattr(settings, name)
            if not holds(value):
                raise InputError(
                    f"`{name}` must be {rule}. Received: {name}={value}."
                )
    _check_image(settings)
    _check_fusion(settings)
    _check_text(settings)
    _check_rdrop(settings)
    _check_compiled(settings)


def _check_image(settings: "Settings") -> None:
    if settings.train_image_model and settings.image_precision != "float32":
        raise InputError(
            "`image_precision` must be 'float32' for an image model that is "
            "trained along (see `matmul_precision`). Received: "
            f"image_precision={settings.image_precision}, "
            "train_image_model=True."
        )


def _check_fusion(settings: "Settings") -> None:
    if settings.group_size > 1 and settings.fusion == "concat":
        raise InputError(
            "`group_size` must be 1 for the fusion 'concat', which reads "
            f"the photo for each caption. Received: {settings.group_size}."
        )
    if settings.concept_units and settings.fusion == "concat":
        raise InputError(
            "`concept_units` must be 0 for the fusion 'concat'. Received: "
            f"concept_units={settings.concept_units}."
        )
    if settings.fusion == "concat" and (
        settings.objective != "tokens" or settings.cider_epochs
    ):
        raise InputError(
            "`objective` must be 'tokens' and `cider_epochs` 0 for the "
            "fusion 'concat', which reads a photo for each caption. "
            f"Received: objective={settings.objective}, "
            f"cider_epochs={settings.cider_epochs}."
        )


def _check_rdrop(settings: "Settings") -> None:
    dropouts = ["text_dropout"]
    if settings.fusion == "cross_attention":
        dropouts += ["fusion_dropout", "image_dropout"]
    if settings.rdrop_weight and not any(
        getattr(settings, name) for name in dropouts
    ):
        raise InputError(
            f"`rdrop_weight` must be 0 without dropout ({', '.join(dropouts)}"
            "), which alone tells two readings of a batch apart. Received: "
            f"rdrop_weight={settings.rdrop_weight}."
        )


def _check_compiled(settings: "Settings") -> None:
    if settings.jit_compile and (
        settings.cached_maskings
        or settings.cider_epochs
        or settings.objective != "tokens"
    ):
        raise InputError(
            "`jit_compile` must be False for cached maskings and for captions "
            "that the model draws, whose shapes change from step to step. "
            "Received: jit_compile=True, "
            f"cached_maskings={settings.cached_maskings}, "
            f"objective={settings.objective}, "
            f"cider_epochs={settings.cider_epochs}."
        )


def _check_text(settings: "Settings") -> None:
    if settings.lora_rank and not settings.train_text_model:
        raise InputError(
            "`train_text_model` must be True for `lora_rank`, which says "
            "what of ALBERT is trained. Received: "
            f"lora_rank={settings.lora_rank}, train_text_model=False."
        )
    if settings.cached_maskings:
        _check_caching(settings)
    elif settings.redraw_epochs:
        raise InputError(
            "`redraw_epochs` must be 0 without `cached_maskings`. "
            f"Received: redraw_epochs={settings.redraw_epochs}."
        )
    if settings.max_positions < settings.max_length:
        raise InputError(
            "`max_positions` must be at least `max_length`. Received: "
            f"max_positions={settings.max_positions}, "
            f"max_length={settings.max_length}."
        )
    # A pretrained ALBERT has a width and a vocabulary of its own.
    if settings.text_weights == "random":
        _check_heads(settings)
    elif settings.prune_vocabulary:
        raise InputError(
            "`prune_vocabulary` must be False for a pretrained ALBERT, "
            "whose tokens are as they are. Received: "
            f"text_weights={settings.text_weights}."
        )


def _check_caching(settings: "Settings") -> None:
    rules = (
        (
            "fusion",
            settings.fusion == "concat",
            "'concat' for cached maskings: cross-attention reads all of a "
            "caption's states, not the masked ones alone",
        ),
        (
            "train_text_model",
            not settings.train_text_model,
            "False for cached maskings, which a trained ALBERT would make "
            "stale",
        ),
        (
            "text_dropout",
            settings.text_dropout == 0,
            "0 for cached maskings, of which ALBERT draws no dropout anew",
        ),
        (
            "redraw_epochs",
            not 0 < settings.redraw_epochs < settings.cached_maskings,
            f"0 or at least cached_maskings={settings.cached_maskings}, for "
            "each pass over the captions takes one of the maskings",
        ),
    )
    for name, holds, rule in rules:
        if not holds:
            raise InputError(
                f"`{name}` must be {rule}. Received: "
                f"{name}={getattr(settings, name)}."
            )


def _check_heads(settings: "Settings") -> None:
    names = ["num_heads"]
    if settings.fusion == "cross_attention":
        names.append("fusion_heads")
    for name in names:
        if settings.hidden_dim % getattr(settings, name):
            raise InputError(
                f"`{name}` must divide `hidden_dim`. Received: "
                f"{name}={getattr(settings, name)}, "
                f"hidden_dim={settings.hidden_dim}."
            )
