"""What a strategy needs, and what does not go with one."""

import json
from types import SimpleNamespace

import pytest
import tensorflow as tf

from bmt_keras.errors import InputError
from bmt_keras.training import distributed
from bmt_keras.training.distributed import (
    LostWorkerError,
    check_replicas,
    check_same_step,
    chief_first,
    detect_lost_worker,
    is_chief,
    open_strategy,
    wait_for_workers,
)

HOSTS = ["localhost:1", "localhost:2"]
FIRST = {"type": "worker", "index": 0}
CACHED = {
    **{"cached_maskings": 2, "text_trainable": False},
    **{"fusion": "concat", "concept_dim": 0},
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [
        ("parameter-server", None, "one of mirrored, multi-worker, tpu"),
        ("multi-worker", None, r"TF_CONFIG: .*; found nothing"),
        ("tpu", None, "'local' on a TPU's own machine"),
        ("mirrored", "local", "given with the strategy 'tpu' alone"),
    ],
)
def test_strategy_without_what_it_needs_is_refused(name, address, message):
    with pytest.raises(InputError, match=message):
        open_strategy(name, tpu_address=address)


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        {"cluster": {"worker": HOSTS}},
        {"cluster": {"worker": HOSTS}, "task": {"type": "worker"}},
        {"cluster": {"worker": HOSTS}, "task": {"type": "worker", "index": 2}},
        {"cluster": {"worker": HOSTS}, "task": {"type": "chief", "index": 0}},
        {"cluster": {"worker": HOSTS, "ps": HOSTS}, "task": FIRST},
        {"cluster": {"worker": HOSTS, "chief": HOSTS}, "task": FIRST},
        {"cluster": {"worker": ["localhost"]}, "task": FIRST},
        {"cluster": {"worker": "localhost:1"}, "task": FIRST},
        {"cluster": ["localhost:1"], "task": FIRST},
    ],
)
def test_addresses_that_make_no_sense_are_refused(config, monkeypatch):
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG: expected the addresses"):
        open_strategy("multi-worker")


@pytest.mark.parametrize("given", ["option", "environment"])
def test_tpu_that_does_not_answer_is_named(given, monkeypatch):
    asked = []

    def resolve(address):
        asked.append(address)
        raise ValueError("no such TPU")

    monkeypatch.setattr(
        tf.distribute.cluster_resolver, "TPUClusterResolver", resolve
    )
    if given == "environment":
        monkeypatch.setenv("TPU_NAME", "mine")
    with pytest.raises(InputError, match=r"mine: .* none \(no such TPU\)"):
        open_strategy("tpu", tpu_address="mine" if given == "option" else None)
    assert asked == ["mine"]


def test_one_process_waits_for_nobody():
    for strategy in (open_strategy(None), open_strategy("mirrored")):
        assert is_chief(strategy)
        wait_for_workers(strategy)
        check_same_step(strategy, 3)
        with chief_first(strategy):
            pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"self_critical_samples": 2},
            "`self_critical_samples` must be 0 with a strategy",
        ),
        ({"jit_compile": True}, "`jit_compile` must be False with a strategy"),
        (
            {"batch_size": 11, "group_size": 3},
            "`batch_size` must be at least a group .* the 4",
        ),
        (CACHED, "`cached_maskings` must be 0 with a strategy"),
    ],
)
def test_settings_that_cannot_be_shared_out_are_refused(
    tiny_settings, changes, message
):
    four = SimpleNamespace(num_replicas_in_sync=4)
    check_replicas(tiny_settings, four)
    check_replicas(tiny_settings.replace(**changes), None)
    with pytest.raises(InputError, match=message):
        check_replicas(tiny_settings.replace(**changes), four)


def test_lost_worker_is_named_with_the_first_cause(monkeypatch):
    error = tf.errors.InternalError(None, None, "of one process")
    with (
        pytest.raises(tf.errors.InternalError),
        detect_lost_worker(open_strategy("mirrored")),
    ):
        raise error
    monkeypatch.setattr(distributed, "_has_workers", lambda _: True)
    error = tf.errors.AbortedError(None, None, "a\nb aborted by c\nd")
    with (
        pytest.raises(LostWorkerError, match=r"start all .* \(b aborted by c"),
        detect_lost_worker(object()),
    ):
        raise error
