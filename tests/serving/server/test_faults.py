"""What goes wrong in operation, with a captioner that was really exported."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras import contract
from bmt_keras.export.saved_model import export_captioner
from bmt_keras.serving.server import EmbeddedServer

CORRUPT = b"\xff\xd8\xff corrupt"
MODEL = contract.MODEL_NAME
# The memory test's weights: a leaked version cannot hide beside the margin.
WEIGHTS_MB, MARGIN_MB = 16, 48


@pytest.fixture(scope="module")
def exported(tiny_captioner, tmp_path_factory):
    base = tmp_path_factory.mktemp("exported")
    export_captioner(tiny_captioner, base, version=1)
    return base / "1"


@pytest.fixture
def base(exported, tmp_path):
    publish(exported, tmp_path, 1)
    return tmp_path


@pytest.fixture(scope="module")
def photos(tiny_sample):
    paths = sorted((tiny_sample / "images" / "train").iterdir())[:9]
    return [path.read_bytes() for path in paths]


@pytest.fixture
def caption(make_request):
    """Asks for captions; returns (captions, errors, version)."""

    def ask(stub, images):
        request = make_request(
            contract.SERVING_DEFAULT,
            {contract.IMAGE_BYTES: np.array(images, dtype=object)},
            model=MODEL,
        )
        response = stub.Predict(request, timeout=240)
        captions, errors = (
            [value.decode() for value in response.outputs[name].string_val]
            for name in (contract.CAPTION, contract.ERROR)
        )
        return captions, errors, response.model_spec.version.value

    return ask


def publish(source, base, version):
    """Copies a version beside its name, then renames it."""
    partial = base / f".{version}"
    shutil.copytree(source, partial)
    partial.rename(base / str(version))


def _wait(holds, seconds=240):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


# === Load ===


class Load:
    """Threads that ask for one photo after another; every tenth is corrupt.

    Args:
        address: str.
        caption: function of a stub and photos.
        photos: the good ones.
        num_threads: int.
    """

    def __init__(self, address, caption, photos, num_threads):
        self.answers = []
        self.failures = []
        self._ask = caption
        self._pictures = [*photos, CORRUPT]
        self._stop = threading.Event()
        self._channel = grpc.insecure_channel(address)
        self._pool = ThreadPoolExecutor(num_threads)
        self._threads = [
            self._pool.submit(self._run, start) for start in range(num_threads)
        ]

    def _run(self, number):
        stub = PredictionServiceStub(self._channel)
        while not self._stop.is_set():
            index = number % len(self._pictures)
            try:
                captions, errors, version = self._ask(
                    stub, [self._pictures[index]]
                )
                self.answers.append((index, captions[0], errors[0], version))
            except grpc.RpcError as error:
                self.failures.append(error)
                return
            number += 1

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.result()
        self._pool.shutdown()
        self._channel.close()


def test_reload_under_load_fails_no_good_photo(base, exported, caption, photos):
    with EmbeddedServer(base, port=0, poll_seconds=0.05) as server:
        address = f"127.0.0.1:{server.port}"
        with grpc.insecure_channel(address) as channel:
            stub = PredictionServiceStub(channel)
            expected = [caption(stub, [photo])[0][0] for photo in photos]
        load = Load(address, caption, photos, 8)
        _wait(lambda: len(load.answers) > 20)
        publish(exported, base, 2)
        _wait(lambda: server.versions == {MODEL: [2]})
        done = len(load.answers)
        _wait(lambda: len(load.answers) > done + 20)
        load.end()
    assert load.failures == []
    assert {version for *_, version in load.answers} == {1, 2}
    for index, written, error, _ in load.answers:
        if index < len(photos):
            assert (written, error) == (expected[index], "")
        else:
            assert written == ""
            assert error != ""


def test_broken_version_under_load_changes_nothing(
    base, exported, caption, photos, tmp_path_factory
):
    broken = tmp_path_factory.mktemp("broken") / "1"
    shutil.copytree(exported, broken)
    (weights,) = (broken / "variables").glob("variables.data-*")
    os.truncate(weights, weights.stat().st_size // 2)
    with EmbeddedServer(base, port=0, poll_seconds=0.05) as server:
        load = Load(f"127.0.0.1:{server.port}", caption, photos, 4)
        publish(broken, base, 2)
        _wait(lambda: server._served._failed[MODEL])
        done = len(load.answers)
        _wait(lambda: len(load.answers) > done + 20)
        load.end()
    assert load.failures == []
    assert {version for *_, version in load.answers} == {1}


def test_corrupt_photo_leaves_its_neighbours_whole(base, caption, photos):
    with (
        EmbeddedServer(base, port=0) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = PredictionServiceStub(channel)
        alone = [caption(stub, [photo])[0][0] for photo in photos[:2]]
        captions, errors, _ = caption(
            stub, [photos[0], CORRUPT, b"", photos[1]]
        )
    assert [captions[0], captions[3]] == alone
    assert [captions[1], captions[2]] == ["", ""]
    assert [error != "" for error in errors] == [False, True, True, False]


# === SIGTERM ===


def test_sigterm_under_load_ends_every_call_that_was_taken(
    base, caption, photos
):
    command = [sys.executable, "-m", "bmt_keras.commands", "serve"]
    command += ["--models", str(base), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        try:
            line = process.stdout.readline()
            port = int(re.fullmatch(r"Serving .*:(\d+)\n", line)[1])
            load = Load(f"127.0.0.1:{port}", caption, photos, 8)
            _wait(lambda: len(load.answers) > 20)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=240) == 0
        finally:
            process.kill()
        load.end()
    # Each thread goes on until it is turned away.
    codes = [error.code() for error in load.failures]
    assert codes == [grpc.StatusCode.UNAVAILABLE] * 8


# === Memory ===


class Heavy(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.ones([WEIGHTS_MB * 2**18]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def scale(self, x):
        return {"y": x * tf.reduce_mean(self.weights)}


def _resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_memory_levels_off_over_ten_reloads(tmp_path, make_request):
    heavy = Heavy()
    source = tmp_path / "heavy"
    tf.saved_model.save(
        heavy, str(source), signatures={"serving_default": heavy.scale}
    )
    base = tmp_path / "base"
    base.mkdir()
    publish(source, base, 1)
    request = make_request("", {"x": np.float32([2.0])}, model="heavy")
    with (
        EmbeddedServer(base, "heavy", port=0, poll_seconds=0.02) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = PredictionServiceStub(channel)
        sizes = []
        for version in range(2, 16):
            publish(source, base, version)
            shutil.rmtree(base / str(version - 1))
            _wait(lambda v=version: server.versions == {"heavy": [v]})
            assert list(stub.Predict(request).outputs["y"].float_val) == [2.0]
            sizes.append(_resident_mb())
    # The first four reloads are the warm-up, ten come after.
    assert len(sizes[4:]) == 10
    assert sizes[-1] - sizes[3] < MARGIN_MB
