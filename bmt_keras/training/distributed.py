"""One run on several devices and machines, by `tf.distribute`.

Every process plans the same batches and each replica reads its share, so that
a run on several replicas computes what one with the whole batch computes.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.shares import Replicas
from bmt_keras.errors import InputError
from bmt_keras.settings import Settings

STRATEGIES = ("mirrored", "multi-worker", "tpu")
_TF_CONFIG = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)

# === Strategies ===


def check_strategy(name: str | None, *, tpu_address: str | None = None) -> None:
    """Checks that a strategy can be opened and has all that it needs.

    Args:
        name: As for `open_strategy`.
        tpu_address: As for `open_strategy`.

    Raises:
        InputError: There is no such strategy, or the address or environment
            that it needs is missing or makes no sense.
    """
    if name is not None and name not in STRATEGIES:
        raise InputError(
            f"`strategy` must be one of {', '.join(STRATEGIES)}. Received: "
            f"{name}."
        )
    if name != "tpu" and tpu_address is not None:
        raise InputError(
            "`tpu_address` must be given with the strategy 'tpu' alone. "
            f"Received: strategy={name}, tpu_address={tpu_address}."
        )
    if name == "multi-worker":
        _check_tf_config(os.environ.get(_TF_CONFIG, ""))
    if name == "tpu" and not _tpu_address(tpu_address):
        raise InputError(
            "`tpu_address` must name a TPU ('local' on a TPU's own machine), "
            "or the environment's TPU_NAME. Received: none."
        )


def open_strategy(
    name: str | None, *, tpu_address: str | None = None
) -> tf.distribute.Strategy | None:
    """Opens a strategy, before anything else asks TensorFlow for devices.

    Args:
        name: `"mirrored"`, the GPUs of this machine, or its processor where
            there is none; `"multi-worker"`, one of several processes that
            `TF_CONFIG` lists, whose start waits for all of them; `"tpu"`;
            None for no strategy.
        tpu_address: Address or name of the TPU; None for `TPU_NAME`.

    Returns:
        The strategy, or None.

    Raises:
        InputError: As `check_strategy`, or no TPU answers.
    """
    check_strategy(name, tpu_address=tpu_address)
    if name is None:
        return None
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi-worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return _open_tpu(_tpu_address(tpu_address))


def _check_tf_config(text: str) -> None:
    """Checks what would otherwise fail late, or wait for ever."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        members = cluster[task["type"]]
        index = int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise _bad_tf_config(text or "nothing") from error
    if (
        not isinstance(cluster, Mapping)
        or not set(cluster) <= {"chief", "worker"}
        or not all(map(_is_addresses, cluster.values()))
        or not 0 <= index < len(members)
        or len(cluster.get("chief", ())) > 1
    ):
        raise _bad_tf_config(text)


def _is_addresses(members: Any) -> bool:
    return isinstance(members, list) and all(
        isinstance(each, str) and ":" in each for each in members
    )


def _bad_tf_config(found: str) -> InputError:
    return InputError(
        f"{_TF_CONFIG}: expected the addresses of all workers (and of one "
        f"'chief' at most) and which of them this process is, as in "
        f"{_EXAMPLE}; found {found}."
    )


def _tpu_address(given: str | None) -> str:
    return given or os.environ.get("TPU_NAME", "")


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
    """Another worker has ended: start all of them again.

    An ordinary end of the process would wait a minute for the lost worker;
    `os._exit` does not.
    """


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
        if strategy is None or not _has_workers(strategy):
            raise
        lines = str(error).splitlines()
        causes = [line for line in lines if "aborted by" in line] or lines
        raise LostWorkerError(
            "Another worker is lost; start all of them again, and they go on "
            f"from the last checkpoint. ({' '.join(causes[0].split())})"
        ) from error


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process is the one that writes and prints."""
    if strategy is None or not _has_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().jobs:
        return bool(resolver.task_type == "chief")
    return bool(resolver.task_id == 0)


def wait_for_workers(strategy: tf.distribute.Strategy | None) -> None:
    """Waits until all workers have called this."""
    if strategy is not None and _has_workers(strategy):
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
    """Checks that all workers have loaded the same checkpoint.

    Args:
        strategy: The run's; None for a run without one.
        step: Of the checkpoint, 0 for none.

    Raises:
        InputError: Another worker is at another step.
    """
    if strategy is None or not _has_workers(strategy):
        return
    mean = _sum_over_workers(strategy, float(step)) / _sum_over_workers(
        strategy, 1.0
    )
    if mean != step:
        raise InputError(
            "Workers go on from different checkpoints: this one from step "
            f"{step}, the mean is {mean:g}; all must see one folder under "
            "--out."
        )


def _sum_over_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    return float(strategy.reduce("SUM", tf.constant(value), axis=None))


def _has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether other processes take part."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    cluster = strategy.cluster_resolver.cluster_spec().as_dict()
    return sum(map(len, cluster.values())) > 1


# === Replicas ===


def check_replicas(
    settings: Settings, strategy: tf.distribute.Strategy | None
) -> None:
    """Checks that a run can be shared among a strategy's replicas.

    Raises:
        InputError: A setting does not go with a strategy.
    """
    if strategy is None:
        return
    number = strategy.num_replicas_in_sync
    batches, steps = settings.batches, settings.optimization
    for name, holds, rule in (
        (
            "self_critical_samples",
            steps.self_critical_samples == 0,
            "0 with a strategy: one process samples the captions",
        ),
        (
            "cached_maskings",
            batches.cached_maskings == 0,
            "0 with a strategy: the step that is left is too short to share",
        ),
        (
            "jit_compile",
            not steps.jit_compile,
            "False with a strategy, whose steps Keras does not compile",
        ),
        (
            "batch_size",
            batches.batch_size >= number * batches.group_size,
            "at least a group of captions for each of the "
            f"{number} replicas that share a batch",
        ),
    ):
        if not holds:
            raise InputError(
                f"`{name}` must be {rule}. Received: "
                f"{name}={settings.get(name)}."
            )


class SharedBatches:
    """Batches of which each replica reads its share.

    Args:
        batches: The whole batches.
        strategy: The run's.
    """

    def __init__(
        self, batches: CaptionBatches, strategy: tf.distribute.Strategy
    ) -> None:
        self._batches = batches
        self._strategy = strategy

    def dataset(self, start_step: int = 0) -> tf.distribute.DistributedDataset:
        """Gives the shares of all batches from a step on, without end."""

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            total = context.num_replicas_in_sync
            local = total // context.num_input_pipelines
            replicas = Replicas(context.input_pipeline_id * local, local, total)
            dataset = self._batches.dataset(start_step, replicas=replicas)
            # Else workers would ask each other at each step whether all go on.
            return dataset.apply(
                tf.data.experimental.assert_cardinality(
                    tf.data.INFINITE_CARDINALITY
                )
            )

        return self._strategy.distribute_datasets_from_function(make)


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
    # Keras has no public list of the layers within layers.
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
