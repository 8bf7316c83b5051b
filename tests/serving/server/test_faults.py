"""What goes wrong in operation, with a captioner that was really exported."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras import contract
from bmt_keras.export.saved_model import export_captioner

CORRUPT = b"\xff\xd8\xff corrupt"
MODEL = contract.MODEL_NAME
# The memory test's weights: a leaked version cannot hide in the margin.
WEIGHTS_MB, MARGIN_MB = 16, 48
PATIENCE = 240


@pytest.fixture(scope="module")
def exported(tiny_captioner, tmp_path_factory):
    base = tmp_path_factory.mktemp("exported")
    export_captioner(tiny_captioner, base, version=1)
    return base / "1"


@pytest.fixture
def base(exported, tmp_path, publish):
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
        response = stub.Predict(request, timeout=PATIENCE)
        captions, errors = (
            [value.decode() for value in response.outputs[name].string_val]
            for name in (contract.CAPTION, contract.ERROR)
        )
        return captions, errors, response.model_spec.version.value

    return ask


# === Load ===


@contextmanager
def load(stub, caption, photos, num_threads):
    """Asks for photos in threads without a pause; every tenth is corrupt."""
    images = [*photos, CORRUPT]
    answers, failures, stop = [], [], threading.Event()

    def run(number):
        while not stop.is_set():
            index = number % len(images)
            try:
                (text,), (error,), version = caption(stub, [images[index]])
            except grpc.RpcError as failure:
                failures.append(failure)
                return
            answers.append((index, text, error, version))
            number += 1

    with ThreadPoolExecutor(num_threads) as pool:
        threads = [pool.submit(run, number) for number in range(num_threads)]
        try:
            yield answers, failures
        finally:
            stop.set()
        for thread in threads:
            thread.result()


def _has_failed(server, number):
    statuses = server._models.list_statuses(ModelSpec(name=MODEL))
    return any(s.version == number and s.status.error_code for s in statuses)


def test_reload_under_load_fails_no_good_photo(
    base, exported, caption, photos, tmp_path, serve, wait_until, publish
):
    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    (weights,) = (broken / "variables").glob("variables.data-*")
    os.truncate(weights, weights.stat().st_size // 2)
    with serve(base, MODEL, poll_seconds=0.05) as (server, stub, _):
        expected = [caption(stub, [photo])[0][0] for photo in photos]
        with load(stub, caption, photos, 8) as (answers, failures):

            def wait_for_answers():
                done = len(answers)
                wait_until(lambda: len(answers) > done + 20, PATIENCE)

            publish(broken, base, 2)
            wait_until(lambda: _has_failed(server, 2), PATIENCE)
            wait_for_answers()
            assert server.versions == {MODEL: [1]}
            publish(exported, base, 3)
            wait_until(lambda: server.versions == {MODEL: [3]}, PATIENCE)
            wait_for_answers()
    assert failures == []
    assert {version for *_, version in answers} == {1, 3}
    for index, written, error, _ in answers:
        if index < len(photos):
            assert (written, error) == (expected[index], "")
        else:
            assert written == ""
            assert error != ""


def test_corrupt_photo_leaves_its_neighbours_whole(
    base, caption, photos, serve
):
    with serve(base, MODEL) as (_, stub, _):
        alone = [caption(stub, [photo])[0][0] for photo in photos[:2]]
        captions, errors, _ = caption(
            stub, [photos[0], CORRUPT, b"", photos[1]]
        )
    assert [captions[0], captions[3]] == alone
    assert [captions[1], captions[2]] == ["", ""]
    assert [error != "" for error in errors] == [False, True, True, False]


# === SIGTERM ===


def test_sigterm_under_load_ends_every_call_that_was_taken(
    base, caption, photos, wait_until
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
            with (
                grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
                load(PredictionServiceStub(channel), caption, photos, 8) as (
                    answers,
                    failures,
                ),
            ):
                wait_until(lambda: len(answers) > 20, PATIENCE)
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=PATIENCE) == 0
                # Each thread goes on until it is turned away.
                wait_until(lambda: len(failures) == 8, PATIENCE)
        finally:
            process.kill()
    codes = {error.code() for error in failures}
    assert codes == {grpc.StatusCode.UNAVAILABLE}


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


def test_memory_levels_off_over_ten_reloads(
    tmp_path, make_request, serve, wait_until, publish
):
    heavy = Heavy()
    source = tmp_path / "heavy"
    tf.saved_model.save(
        heavy, str(source), signatures={"serving_default": heavy.scale}
    )
    base = tmp_path / "base"
    base.mkdir()
    publish(source, base, 1)
    request = make_request("", {"x": np.float32([2.0])}, model="heavy")
    with serve(base, "heavy", poll_seconds=0.02) as (server, stub, _):
        sizes = []
        for version in range(2, 16):
            publish(source, base, version)
            shutil.rmtree(base / str(version - 1))
            wait_until(
                lambda v=version: server.versions == {"heavy": [v]}, PATIENCE
            )
            assert list(stub.Predict(request).outputs["y"].float_val) == [2.0]
            sizes.append(_resident_mb())
    # The first four reloads are the warm-up, ten come after.
    assert len(sizes[4:]) == 10
    assert sizes[-1] - sizes[3] < MARGIN_MB
