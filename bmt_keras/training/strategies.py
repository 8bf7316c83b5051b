"""Which devices and machines a run trains on, by `tf.distribute`."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from bmt_keras.errors import InputError

STRATEGIES = ("mirrored", "multi-worker", "tpu")
_TF_CONFIG = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def check_strategy(name: str | None, *, tpu_address: str | None = None) -> None:
    """Checks that a strategy can be opened, and has been told all it needs.

    Args:
        name: As for `open_strategy`.
        tpu_address: As well.

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


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process is the one that writes and prints.

    Args:
        strategy: The run's; None for a run without one.

    Returns:
        True but for all workers after the first.
    """
    if strategy is None or not _has_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().jobs:
        return bool(resolver.task_type == "chief")
    return bool(resolver.task_id == 0)


def wait_for_workers(strategy: tf.distribute.Strategy | None) -> None:
    """Waits until all workers have called this.

    Args:
        strategy: The run's; None for a run without one.
    """
    if strategy is not None and _has_workers(strategy):
        _sum_over_workers(strategy, 0.0)


@contextmanager
def chief_first(strategy: tf.distribute.Strategy | None) -> Iterator[None]:
    """Lets the chief run a block, then all others, which find what it wrote.

    Args:
        strategy: The run's; None for a run without one.

    Yields:
        When it is this process' turn.
    """
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
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    return sum(map(len, resolver.cluster_spec().as_dict().values())) > 1


def _check_tf_config(text: str) -> None:
    """Checks what would otherwise fail late, or wait for ever."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        members = cluster[task["type"]]
        index = int(task["index"])
    except (ValueError, KeyError, TypeError) as err:
        raise _bad_tf_config(text or "nothing") from err
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
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as err:
        reason = str(err).splitlines()[0]
        raise InputError(
            f"{address}: expected a TPU that answers, found none ({reason})."
        ) from err
