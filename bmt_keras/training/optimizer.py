"""The optimizer that the settings ask for."""

from typing import Any

import keras

from bmt_keras.models import AveragingAdamW
from bmt_keras.settings import Settings


def build_optimizer(
    settings: Settings, total_steps: int
) -> keras.optimizers.Optimizer:
    """Builds Adam, with decoupled weight decay or an average where asked.

    Biases, normalisations and gates are not decayed. `total_steps` are the
    batches of the whole run.
    """
    steps = settings.optimization
    rate: Any = steps.learning_rate
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
    """Compiles a model for training; arguments as for `build_optimizer`."""
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
