"""The load generator's numbers, the bench's and those of load with faults."""

import json
import threading
import time
from contextlib import contextmanager

import grpc
import pytest
import typer
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)
from typer.testing import CliRunner

from bmt_keras.serving.bench import bench
from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.load import offer_load
from bmt_keras.serving.stress import StressTest, stress


def test_calls_and_failures_are_counted():
    measured = offer_load(
        lambda number: number % 4 != 0, seconds=0.2, concurrency=2
    )
    total = measured.calls + measured.failures
    assert measured.failures == -(-total // 4)
    assert measured.p50_ms <= measured.p95_ms <= measured.p99_ms


def test_open_loop_counts_from_when_a_call_was_due():
    def call(number):
        time.sleep(0.02)
        return True

    measured = offer_load(call, seconds=0.5, concurrency=1, rate=100)
    # Fifty calls a second are answered, a hundred are due: the last ones have
    # waited for about half a second.
    assert measured.p99_ms > 200
    assert 25 <= measured.calls <= 80


def test_no_more_calls_are_under_way_than_asked():
    lock, running, seen = threading.Lock(), [], []

    def call(number):
        with lock:
            running.append(number)
            seen.append(len(running))
        time.sleep(0.005)
        with lock:
            running.remove(number)
        return True

    offer_load(call, seconds=0.5, concurrency=3)
    assert max(seen) == 3


@pytest.mark.parametrize("rate", [None, 200])
def test_load_goes_on_while_it_is_asked_to(rate):
    halfway = threading.Event()
    numbers = []

    def call(number):
        time.sleep(0.001)
        numbers.append(number)
        return True

    measured = offer_load(
        call,
        seconds=0.1,
        concurrency=2,
        rate=rate,
        halfway=halfway.set,
        go_on_while=lambda: len(numbers) < 500,
    )
    assert halfway.is_set()
    assert measured.calls >= 500
    assert measured.took_s > 0.1
    assert sorted(numbers) == list(range(measured.calls))


def test_load_without_a_success_is_an_error():
    with pytest.raises(ServingError, match=r"All \d+ failed"):
        offer_load(lambda number: False, seconds=0.05, concurrency=1)


def _run(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"a photo")
    return path


def test_bench_writes_a_table_and_json(captioner_path, tmp_path, photo):
    out = tmp_path / "runs" / "bench.json"
    result = _run(
        bench,
        *("--photo", photo, "--models", captioner_path, "--out", out),
        *("--seconds", 0.5, "--share", 0.5, "--batch", 2),
        *("--concurrency", 1, "--concurrency", 2),
    )
    assert result.exit_code == 0, result.output
    assert "p99" in result.stdout
    written = json.loads(out.read_text())
    assert [row["what"] for row in written["rows"]] == [
        "direct",
        "served",
        "served",
        "closed loop",
        "closed loop",
        "open loop",
        "open loop",
    ]
    assert written["p50_served_over_direct"] > 0
    for row in written["rows"]:
        assert row["calls"] > 0
        assert row["failures"] == 0


@pytest.mark.parametrize("command", [bench, stress])
def test_folder_without_a_version_is_told(tmp_path, photo, command):
    result = _run(command, "--photo", photo, "--models", tmp_path)
    assert isinstance(result.exception, ServingError)
    assert "folder named by a version number" in str(result.exception)


# === Load with faults ===


def test_stress_counts_good_and_corrupt_photos(captioner_path, tmp_path, photo):
    out = tmp_path / "load.json"
    result = _run(
        stress,
        *("--photo", photo, "--models", captioner_path, "--out", out),
        *("--seconds", 2, "--concurrency", 4, "--rate", 20),
    )
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert written["passed"]
    assert written["reasons"] == []
    good, corrupt = written["rows"]
    assert good["answered"] == good["asked"] > 5 * corrupt["asked"]
    assert corrupt["answered"] == corrupt["asked"] > 0
    assert set(written["versions"]) == {"1", "2"}
    assert sum(written["versions"].values()) == good["asked"] + corrupt["asked"]
    assert "p99" in result.stdout


PHOTO = b"the photo"


@pytest.fixture
def stress_with(serve_answers, answer_captions):
    """Runs ten calls against a captioner whose answers are changed."""

    @contextmanager
    def run(change):
        def answer(request, context):
            response = answer_captions(request)
            (photo,) = request.inputs["image_bytes"].string_val
            texts = {
                name: response.outputs[name].string_val
                for name in ("caption", "error")
            }
            if photo.startswith(b"BAD"):
                texts["caption"][0] = b""
                texts["error"][0] = b"received %d bytes" % len(photo)
            change(photo, texts, context)
            return response

        with grpc.insecure_channel(serve_answers(answer)) as channel:
            test = StressTest(PredictionServiceStub(channel), [PHOTO])
            yield test, [test.call(number) for number in range(10)]

    return run


def test_stress_takes_right_answers(stress_with):
    with stress_with(lambda *_: None) as (test, right):
        assert right == [True] * 10
        assert test.counts == {("good", True): 9, ("corrupt", True): 1}


def _fail_corrupt(photo, texts, context):
    if photo != PHOTO:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad image")


def _forget_the_error(photo, texts, context):
    texts["error"][0] = b""


def _tell_of_another_photo(photo, texts, context):
    if photo != PHOTO:
        texts["error"][0] = b"received 1 bytes"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_fail_corrupt, "a corrupt photo: INVALID_ARGUMENT: bad image"),
        (_forget_the_error, "a corrupt photo: caption '', error ''"),
        (
            _tell_of_another_photo,
            "a corrupt photo: caption '', error 'received 1 bytes'",
        ),
    ],
)
def test_stress_notices_a_corrupt_photo_without_its_error(
    stress_with, change, reason
):
    with stress_with(change) as (test, right):
        assert right == [True] * 9 + [False]
        assert test.reasons == [reason]


def test_stress_notices_another_caption_and_an_error(stress_with):
    answers = iter(["same", "same", "other", "failed"])

    def change(photo, texts, context):
        how = next(answers, "same")
        if how == "other":
            texts["caption"][0] = b"something else"
        elif how == "failed":
            texts["error"][0] = b"no memory"

    with stress_with(change) as (test, right):
        assert right == [True, False, False, *[True] * 7]
        assert test.counts["good", False] == 2
        assert "'something else'" in test.reasons[0]
        assert "'no memory'" in test.reasons[1]
