"""The optimizer that the settings ask for."""

import keras

from bmt_keras.models import AveragingAdamW
from bmt_keras.settings import Settings


def build_optimizer(
    settings: Settings, total_steps: int
) -> keras.optimizers.Optimizer:
    """Builds Adam, with decoupled weight decay or an average where asked.

    Args:
        settings: Rate, schedule, decay, epsilon, clipping, average and
            accumulation are read.
        total_steps: Batches of the whole run, the cosine's length.

    Returns:
        The optimizer. Biases, normalisations and gates are not decayed.
    """
    steps = settings.optimization
    rate: float | keras.optimizers.schedules.LearningRateSchedule
    rate = steps.learning_rate
    if steps.schedule == "cosine":
        warmup = int(total_steps * steps.warmup_share)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else steps.learning_rate,
            max(total_steps - warmup, 1),
            warmup_target=steps.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    batches = steps.gradient_accumulation_steps
    options = {
        "epsilon": steps.adam_epsilon,
        "clipnorm": steps.clipnorm,
        # Keras takes None for every batch.
        "gradient_accumulation_steps": batches if batches > 1 else None,
    }
    if not (steps.weight_decay or steps.ema_momentum):
        return keras.optimizers.Adam(rate, **options)
    return AveragingAdamW(
        rate,
        weight_decay=steps.weight_decay,
        use_ema=steps.ema_momentum > 0,
        # Keras averages after every batch, also between two updates.
        ema_momentum=steps.ema_momentum ** (1 / batches),
        **options,
    )


def compile_model(
    model: keras.Model, settings: Settings, total_steps: int
) -> None:
    """Compiles a model for training.

    Args:
        model: The model; its trainable weights are the optimizer's.
        settings: As for `build_optimizer`, and whether XLA compiles the steps.
        total_steps: Batches of the whole run.
    """
    model.compile(
        optimizer=build_optimizer(settings, total_steps),
        jit_compile=settings.optimization.jit_compile,
    )
    # Variables made within the first step would have it traced twice.
    model.optimizer.build(model.trainable_variables)


def count_batches(optimizer: keras.optimizers.Optimizer) -> int:
    """Batches that an optimizer has seen; `iterations` counts updates."""
    # A replicated one cannot be cast by `int` itself.
    return int(keras.ops.convert_to_numpy(optimizer.variables[0]))
