"""The load generator's numbers, and the bench's table and file."""

import json
import threading
import time

import pytest
import typer
from typer.testing import CliRunner

from bmt_keras.serving.bench import bench
from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.load import offer_load


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


def test_load_without_a_success_is_an_error():
    with pytest.raises(ServingError, match=r"All \d+ failed"):
        offer_load(lambda number: False, seconds=0.05, concurrency=1)


@pytest.fixture
def app():
    app = typer.Typer()
    app.command()(bench)
    return app


def test_bench_writes_a_table_and_json(captioner_path, tmp_path, app):
    photo, out = tmp_path / "photo.jpg", tmp_path / "runs" / "bench.json"
    photo.write_bytes(b"photo")
    arguments = ["--photo", str(photo), "--models", str(captioner_path)]
    arguments += ["--out", str(out), "--seconds", "0.5", "--share", "0.5"]
    arguments += ["--concurrency", "1", "--concurrency", "2", "--batch", "2"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
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
        "corrupt photos, reload",
    ]
    assert written["p50_served_over_direct"] > 0
    for row in written["rows"]:
        assert row["calls"] > 0
        assert row["failures"] == 0
