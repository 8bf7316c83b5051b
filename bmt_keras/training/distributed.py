"""One run on several devices and machines, by `tf.distribute`.

Every process plans the same batches and each replica reads its share, so that
a run on several replicas computes what one with the whole batch computes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from bmt_keras.data.batches import CaptionBatches, Replicas
from bmt_keras.errors import InputError
from bmt_keras.settings import Settings
from bmt_keras.training.strategies import check_strategy

# === Strategies ===


def open_strategy(
    name: str | None, *, tpu_address: str | None = None
) -> tf.distribute.Strategy | None:
    """Opens a strategy, before anything else asks TensorFlow for devices.

    Args:
        name: `"mirrored"`, the GPUs of this machine, or its processor where
            there is none; `"multi-worker"`, one of `TF_CONFIG`'s processes,
            whose start waits for all of them; `"tpu"`; None for no strategy.
        tpu_address: Address or name of the TPU; None for `TPU_NAME`.

    Raises:
        InputError: There is no such strategy, the address or environment that
            it needs is missing or makes no sense, or no TPU answers.
    """
    check_strategy(name, tpu_address=tpu_address)
    if name is None:
        return None
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi-worker":
        # Returns when all workers have answered.
        return tf.distribute.MultiWorkerMirroredStrategy()
    return _open_tpu(tpu_address or os.environ["TPU_NAME"])


def _open_tpu(address: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{address}: expected a TPU that answers, found none ({reason})."
        ) from error


# === Workers ===


class LostWorkerError(RuntimeError):
    """Another worker has ended: start all of them again."""


@contextmanager
def detect_lost_worker(
    strategy: tf.distribute.Strategy | None,
) -> Iterator[None]:
    """Raises `LostWorkerError` where a block fails for want of a worker."""
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    ) as error:
        if not _has_workers(strategy):
            raise
        # One of many lines names the worker that failed first.
        lines = str(error).splitlines()
        causes = [line for line in lines if "aborted by" in line] or lines
        raise LostWorkerError(
            "Another worker is lost; start all of them again, and they go on "
            f"from the last checkpoint. ({' '.join(causes[0].split())})"
        ) from error


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process is the one that writes and prints."""
    return strategy is None or bool(strategy.extended.should_checkpoint)


def wait_for_workers(strategy: tf.distribute.Strategy | None) -> None:
    """Waits until all workers have called this."""
    if _has_workers(strategy):
        _sum_over_workers(strategy, 0.0)


@contextmanager
def chief_first(strategy: tf.distribute.Strategy | None) -> Iterator[None]:
    """Lets the chief run a block, then all others, which find what it wrote."""
    chief = is_chief(strategy)
    if not chief:
        wait_for_workers(strategy)
    yield
    if chief:
        wait_for_workers(strategy)


def check_same_step(strategy: tf.distribute.Strategy | None, step: int) -> None:
    """Checks that all workers go on from the same step.

    Raises:
        InputError: Another worker is at another step.
    """
    if not _has_workers(strategy):
        return
    number = _sum_over_workers(strategy, 1.0)
    mean = _sum_over_workers(strategy, float(step)) / number
    if mean != step:
        raise InputError(
            "Workers go on from different checkpoints: this one from step "
            f"{step}, the mean is {mean:g}; all must see one folder under "
            "--out."
        )


def _sum_over_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    return float(strategy.reduce("SUM", tf.constant(value), axis=None))


def _has_workers(strategy: tf.distribute.Strategy | None) -> bool:
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    cluster = strategy.cluster_resolver.cluster_spec().as_dict()
    return sum(map(len, cluster.values())) > 1


# === Replicas ===


def check_replicas(
    settings: Settings, strategy: tf.distribute.Strategy | None
) -> None:
    """Refuses settings by which no run can be shared among replicas."""
    if strategy is None:
        return
    # One process samples captions, a step of cached maskings is too short to
    # share, and Keras compiles no steps of replicas.
    settings.expect(
        "with a strategy, which shares plain steps alone",
        self_critical_samples=0,
        cached_maskings=0,
        jit_compile=False,
    )
    number, batches = strategy.num_replicas_in_sync, settings.batches
    if batches.batch_size < number * batches.group_size:
        settings.refuse(
            "batch_size",
            f"at least a group of captions for each of the {number} replicas "
            "that share a batch",
        )


def share_dataset(
    batches: CaptionBatches,
    strategy: tf.distribute.Strategy | None,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Gives batches from a step on, without end: each replica its share."""
    if strategy is None:
        return batches.dataset(start_step)

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        total = context.num_replicas_in_sync
        local = total // context.num_input_pipelines
        replicas = Replicas(context.input_pipeline_id * local, local, total)
        # It has no end anyway, but workers would ask each other at each step
        # whether all go on if TensorFlow did not know.
        return batches.dataset(start_step, replicas=replicas).repeat()

    return strategy.distribute_datasets_from_function(make)


def fit_model_to_replicas(
    model: keras.Model, strategy: tf.distribute.Strategy
) -> None:
    """Makes a model's replicas differ, and agree, where they should.

    Each draws a dropout of its own, and all normalise by the whole batch.
    """
    # `_flatten_layers`: Keras has no public list of the layers within layers.
    layers = model._flatten_layers(include_self=False)
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = strategy.num_replicas_in_sync > 1
    # Layers may share a generator, which is shifted once.
    generators = {
        id(layer.seed_generator): layer.seed_generator
        for layer in layers
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0
    }

    def shift_seeds() -> None:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        for generator in generators.values():
            # A checkpoint holds the first replica's seeds, which stay.
            state = generator.state
            state.assign(state + tf.stack([tf.cast(number, state.dtype), 0]))

    strategy.run(shift_seeds)
