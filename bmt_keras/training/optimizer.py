"""The optimizer that the settings ask for."""

import keras

from bmt_keras.settings import Settings


def build_optimizer(
    settings: Settings, total_steps: int
) -> keras.optimizers.Optimizer:
    """Builds Adam, with decoupled weight decay where that is asked.

    Args:
        settings: Rate, schedule, decay, epsilon and clipping are read.
        total_steps: Steps of the whole run, the cosine's length.

    Returns:
        The optimizer. Biases, normalisations and gates are not decayed.
    """
    rate: float | keras.optimizers.schedules.LearningRateSchedule
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        warmup = int(total_steps * settings.warmup_share)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else settings.learning_rate,
            max(total_steps - warmup, 1),
            warmup_target=settings.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    if not settings.weight_decay:
        return keras.optimizers.Adam(
            rate, epsilon=settings.adam_epsilon, clipnorm=settings.clipnorm
        )
    optimizer = keras.optimizers.AdamW(
        rate,
        weight_decay=settings.weight_decay,
        epsilon=settings.adam_epsilon,
        clipnorm=settings.clipnorm,
    )
    optimizer.exclude_from_weight_decay(
        var_names=["bias", "gamma", "beta", "gate"]
    )
    return optimizer
