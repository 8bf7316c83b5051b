"""The benchmarks' arithmetic by hand, and small runs of what they measure."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import captioning
import load_serving
import measure
import numpy as np
import preparation
import pytest
import tensorflow as tf
import training
from measure import Case, Group, Options, Row

import serving
from bmt_keras.data.captions import read_captions

TIMES = {
    "step": [1.0, 2.0, 1.0],
    "caching": [4.0, 4.0, 8.0],
    "notebook": [10.0, 30.0, 20.0],
}
SLEEPER = """
import time, measure

def work():
    print("works", flush=True)
    time.sleep(30)
    print("goes on", flush=True)

if __name__ == "__main__":
    with measure.own_process() as pool:
        pool.submit(work).result()
"""


# === Figures ===


def test_speed_is_the_median_of_the_rounds_ratios():
    row = Row("row", {"step": 1}, {"notebook": 1}, at_least=12)
    figures = measure.compare(row, TIMES)
    names = ("seconds", "reference_seconds", "ratio_low", "ratio", "ratio_high")
    assert [figures[name] for name in names] == [1, 20, 10, 15, 20]
    assert figures["is_met"]
    assert measure.format_row(figures) == (
        "row: 1000.00 ms per item, 15 times (10-20) as fast as notebook; at "
        "least 12: met"
    )


def test_cost_is_the_other_way_round():
    row = Row("row", {"notebook": 1}, {"step": 1}, at_most=14.9)
    figures = measure.compare(row, TIMES)
    assert figures["ratio"] == 15.0
    assert not figures["is_met"]


def test_parts_are_added_up_by_their_shares():
    row = Row("row", {"step": 1, "caching": 0.25}, {"notebook": 2})
    figures = measure.compare(row, TIMES)
    # 1 + 4 / 4, 2 + 4 / 4, 1 + 8 / 4
    assert figures["seconds"] == 3.0
    assert figures["reference"] == "2 x notebook"
    assert figures["ratio"] == pytest.approx(40 / 3)
    assert figures["is_met"] is None


def test_cases_take_turns_and_the_first_round_does_not_count(monkeypatch):
    calls, now = [], iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    cases = {
        name: Case(lambda name=name: calls.append(name), items=4)
        for name in ("a", "b")
    }
    seconds = measure.take_turns(cases, rounds=2)
    assert calls == ["a", "b"] * 3
    assert seconds == {"a": [0.25] * 2, "b": [0.25] * 2}


def build_one(options):
    return Case(os.getpid, items=1)


def build_none(options):
    raise RuntimeError("stopped")


def test_file_is_whole_after_each_group(tmp_path):
    out = tmp_path / "folder" / "results.json"
    row = Row("pid", {"pid": 1})
    builders = {"first": build_one, "second": build_none}
    groups = [Group(n, [row], {"pid": each}) for n, each in builders.items()]
    with pytest.raises(RuntimeError, match="stopped"):
        measure.run_groups(groups, Options(), out)
    results = json.loads(out.read_text())
    assert [row["group"] for row in results["rows"]] == ["first"]
    assert results["cores"] > 0


def test_work_ends_when_its_caller_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SLEEPER)
    folder = str(Path(measure.__file__).parent)
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": folder},
    ) as caller:
        assert caller.stdout.readline() == "works\n"
        caller.kill()
        # The pipe ends with the last process that can write into it.
        rest, _ = caller.communicate(timeout=60)
    assert rest == ""


# === What is measured ===


@pytest.fixture(scope="module")
def small_options():
    with measure.with_data(Options(limit=8, rounds=1, steps=1)) as options:
        yield options


def test_made_captions_are_as_long_as_people_write_them(tmp_path):
    with measure.with_data(Options(limit=100)) as options:
        images = read_captions(options.captions, options.images)
        sizes = [image.path.stat().st_size for image in images]
    lengths = [len(c.split()) for image in images for c in image.captions]
    assert len(lengths) == 500
    # Flickr8k's have a mean of 11.8 and a standard deviation of 3.9.
    assert abs(np.mean(lengths) - 11.8) < 0.6
    assert abs(np.std(lengths) - 3.9) < 0.5
    assert all(40_000 < size < 150_000 for size in sizes)


@pytest.mark.parametrize(
    ("group", "match", "expected"),
    [
        (training.GROUPS[0], "", 9),
        (training.GROUPS[1], "live", 1),
        (captioning.GROUPS[2], " 2 passes, batch 1", 1),
        (preparation.GROUPS[0], "", 1),
    ],
)
def test_group_is_measured(small_options, group, match, expected):
    options = dataclasses.replace(small_options, match=match, small=True)
    rows = measure.measure_group(group, options)
    assert len(rows) == expected
    for row in rows:
        assert row["group"] == group.name
        assert match in row["name"]
        assert row["seconds"] > 0
        assert row["ratio"] > 0


# === A server ===


class Captioner(tf.Module):
    """Captions the length of the image; images that begin with BAD fail."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def caption(self, image_bytes):
        bad = tf.strings.substr(image_bytes, 0, 3) == b"BAD"
        size = tf.strings.as_string(tf.strings.length(image_bytes))
        error = tf.where(bad, "received " + size + " bytes", "")
        return {"caption": tf.where(bad, "", size), "error": error}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    captioner = Captioner()
    tf.saved_model.save(captioner, str(folder / "3"), captioner.caption)
    return folder


def run(script, models, arguments):
    out = models / "out.json"
    script.main(
        ["--models", str(models), "--out", str(out), *arguments.split()]
    )
    return json.loads(out.read_text())


def test_server_is_compared_with_the_direct_call(models):
    results = run(serving, models, "--rounds 3 --batch 2")
    assert all(results[name]["ratio"] > 0 for name in serving.ROWS)


def test_load_counts_good_and_corrupt_images_and_both_versions(models):
    options = "--seconds 2 --concurrency 4 --rate 20"
    results = run(load_serving, models, options)
    assert results["passed"]
    good, corrupt = results["counts"]["good"], results["counts"]["corrupt"]
    assert good["right"] > 5 * corrupt["right"] > 0
    assert good["wrong"] == corrupt["wrong"] == 0
    assert set(results["versions"]) == {"1", "2"}


def test_load_notices_wrong_answers(monkeypatch):
    answers = iter([("a", ""), ("b", ""), ("a", "no memory"), ("a", "")])
    monkeypatch.setattr(
        load_serving.LoadTest,
        "_ask",
        lambda self, image: (*next(answers, ("", "")), 1),
    )
    test = load_serving.LoadTest(None, [b"image"])
    # Another caption, an error, right, and a corrupt one without its error.
    assert [test.call(n) for n in (0, 1, 2, 9)] == [False, False, True, False]
    assert test.counts == {
        "good": {"right": 1, "wrong": 2},
        "corrupt": {"right": 0, "wrong": 1},
    }
    assert "no memory" in test.reasons[1]


def test_open_loop_counts_from_when_a_call_was_due():
    def call(number):
        time.sleep(0.02)
        return number % 4 != 0

    figures = load_serving.offer_load(
        call, seconds=0.5, concurrency=1, rate=100
    )
    # At most fifty calls per second are answered, a hundred are due: the last
    # ones have waited for about half a second.
    assert figures["p99_ms"] > 200
    total = figures["calls"] + figures["failures"]
    assert figures["failures"] == -(-total // 4)


def test_load_without_a_success_or_a_version_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match=r"all \d+ failed"):
        load_serving.offer_load(lambda _: False, seconds=0.05, concurrency=1)
    with pytest.raises(SystemExit, match="version number"):
        serving.find_latest_version(tmp_path)
