"""Runs with a strategy, in processes of their own."""

import csv
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.commands.train import LOST_WORKER

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = Path("tests", "training", "worker.py")
PYTHON = (sys.executable, "-m", ".".join(SCRIPT.with_suffix("").parts))
WORKER = runpy.run_path(ROOT / SCRIPT, run_name="worker")
train, EPOCHS = WORKER["train"], WORKER["SETTINGS"].optimization.epochs
SECONDS = 1500  # for a machine that does other things


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The history of one process with the whole batch."""
    out = tmp_path_factory.mktemp("alone")
    train(out, None, verbose=0)
    return read_history(out)


def read_history(out):
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def assert_same_losses(found, expected):
    assert found["epoch"] == expected["epoch"] == list(range(EPOCHS))
    for name in ("loss", "val_loss", "masked_accuracy", "learning_rate"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    # Else equal losses would show little.
    assert np.ptp(expected["loss"]) > 0.3


@pytest.fixture
def start_two():
    """Starts two workers of a run; gives both processes."""
    with ExitStack() as ended:

        def start(*arguments):
            sockets = [socket.create_server(("localhost", 0)) for _ in "01"]
            hosts = [f"localhost:{s.getsockname()[1]}" for s in sockets]
            for each in sockets:
                each.close()
            return [
                ended.enter_context(start_one(n, hosts, map(str, each)))
                for n, each in enumerate(arguments)
            ]

        def start_one(index, hosts, arguments):
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": hosts}, "task": task}
            process = subprocess.Popen(
                [*PYTHON, "multi-worker", *arguments],
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            ended.callback(process.kill)
            return process

        yield start


def end(process):
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def test_one_device_is_as_no_strategy(alone, tmp_path):
    train(tmp_path, tf.distribute.MirroredStrategy(), verbose=0)
    assert_same_losses(read_history(tmp_path), alone)


def test_killed_workers_go_on_and_are_as_one_with_the_whole_batch(
    alone, start_two, tmp_path
):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    chief, other = start_two([out], [elsewhere, 7])
    code, _, errors = end(chief)
    assert end(other)[0] == -9
    assert code == LOST_WORKER, errors
    assert "Another worker is lost; start all of them again" in errors
    kept = sorted(path.stem for path in (out / "checkpoints").glob("step-*"))
    assert kept[-1] == "step-00000006"
    assert not elsewhere.exists()
    shutil.copytree(out / "checkpoints", elsewhere / "checkpoints")
    before = sorted(elsewhere.rglob("*"))
    chief, other = start_two([out], [elsewhere])
    (code, written, errors), (other_code, other_written, other_errors) = (
        end(chief),
        end(other),
    )
    assert (code, other_code) == (0, 0), errors + other_errors
    assert f"Epoch 7/{EPOCHS}" in written
    assert "Epoch 6/" not in written
    assert f"Epoch {EPOCHS}/{EPOCHS}" in written
    assert_same_losses(read_history(out), alone)
    assert (out / "captioner" / "model.keras").is_file()
    # All but the chief are silent and write nothing.
    assert other_written == ""
    assert sorted(elsewhere.rglob("*")) == before


def test_two_devices_are_as_one_with_the_whole_batch(alone, tmp_path):
    result = subprocess.run(
        [*PYTHON, "two-devices", tmp_path],
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS,
    )
    assert result.returncode == 0, result.stderr.decode()
    assert_same_losses(read_history(tmp_path), alone)
    found = json.loads((tmp_path / "replicas.json").read_text())
    first, second = map(np.array, found["is_dropped"])
    assert (first != second).any()
    assert found["seeds"][0][0] + 1 == found["seeds"][1][0]
    # One replica saw ones, the other threes.
    assert found["means"] == [2.0, 2.0]
