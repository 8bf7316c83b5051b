"""Batches, seeds and statistics of a run whose model has replicas."""

import keras
import tensorflow as tf

from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.shares import Replicas
from bmt_keras.errors import InputError
from bmt_keras.settings import Settings


def check_replicas(settings: Settings, num_replicas: int) -> None:
    """Checks that a run can be shared out.

    Args:
        settings: The run's settings.
        num_replicas: Replicas that share each batch.

    Raises:
        InputError: A setting does not go with a strategy.
    """
    rules = (
        (
            "self_critical_samples",
            settings.optimization.self_critical_samples == 0,
            "0 with a strategy; what it learns goes on in one process",
        ),
        (
            "cached_maskings",
            settings.batches.cached_maskings == 0,
            "0 with a strategy: the step that is left is too short to share",
        ),
        (
            "jit_compile",
            not settings.optimization.jit_compile,
            "False with a strategy, whose steps Keras does not compile",
        ),
        (
            "batch_size",
            settings.batches.batch_size
            >= num_replicas * settings.batches.group_size,
            "at least a group of captions for each of the "
            f"{num_replicas} replicas that share a batch",
        ),
    )
    for name, holds, rule in rules:
        if not holds:
            raise InputError(
                f"`{name}` must be {rule}. Received: "
                f"{name}={settings.get(name)}."
            )


def distribute_batches(
    batches: CaptionBatches,
    strategy: tf.distribute.Strategy,
    *,
    start_step: int = 0,
) -> tf.distribute.DistributedDataset:
    """Gives each replica its share of each batch.

    Every process plans the same batches and reads its own share alone.

    Args:
        batches: The batches.
        strategy: The run's.
        start_step: Begin at this step of the run.

    Returns:
        A dataset for `fit` and `evaluate`, without end.
    """

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        total = context.num_replicas_in_sync
        local = total // context.num_input_pipelines
        replicas = Replicas(context.input_pipeline_id * local, local, total)
        dataset = batches.dataset(start_step, replicas=replicas)
        # Else workers would ask each other at each step whether all go on.
        return dataset.apply(
            tf.data.experimental.assert_cardinality(
                tf.data.INFINITE_CARDINALITY
            )
        )

    return strategy.distribute_datasets_from_function(make)


def fit_model_to_replicas(
    model: keras.Model, strategy: tf.distribute.Strategy
) -> None:
    """Makes a model's replicas differ, and agree, where they should.

    Each draws a dropout of its own, and all normalise by the statistics of
    the whole batch. A checkpoint holds the seeds of the first replica.

    Args:
        model: The model, fresh or from a checkpoint.
        strategy: The one that it was built under.
    """
    layers = model._flatten_layers(include_self=False)
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = strategy.num_replicas_in_sync > 1
    dropouts = [x for x in layers if isinstance(x, keras.layers.Dropout)]
    generators = {
        id(layer.seed_generator): layer.seed_generator
        for layer in dropouts
        if layer.rate > 0
    }
    for generator in generators.values():
        _shift_seed(generator, strategy)


def _shift_seed(
    generator: keras.random.SeedGenerator, strategy: tf.distribute.Strategy
) -> None:
    """Adds its number to each replica's seed."""

    def shift() -> None:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        shifted = generator.state + tf.stack(
            [tf.cast(number, generator.state.dtype), 0]
        )
        generator.state.assign(shifted)

    strategy.run(shift)
