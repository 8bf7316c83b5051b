"""`bmt bench` on models that are too small to tell anything."""

import json

import pytest

TINY = {
    "image-model": "InceptionV3",
    "image-height": 75,
    "image-width": 75,
    "num-layers": 1,
    "num-heads": 2,
    "fusion-heads": 2,
    "embedding-dim": 8,
    "hidden-dim": 16,
    "intermediate-dim": 16,
}


@pytest.fixture
def bench(bmt, tmp_path):
    def run(rows, *arguments):
        sizes = [f"--{name}={value}" for name, value in TINY.items()]
        out = tmp_path / "results.json"
        result = bmt(
            "bench",
            *("--rows", rows, "--out", out, "--limit", 12),
            *("--rounds", 2, "--steps", 2, *sizes, *arguments),
        )
        assert result.code == 0, result
        return result.out, json.loads(out.read_text())

    return run


def test_rows_of_training_stand_beside_the_notebooks_step(bench):
    out, results = bench("training", "--no-memory")
    assert "notebook's step" in out
    rows = {row["name"]: row for row in results["rows"]}
    assert all(row["seconds"] > 0 for row in rows.values())
    live = rows["live, batch 8"]
    assert live["reference"] == "notebook's step"
    assert live["ratio"] > 0
    assert live["floor_seconds"] > 0
    assert results["cores"] > 0


def test_memory_is_that_of_a_process_of_its_own(bench):
    _, results = bench("pipeline")
    assert len(results["rows"]) == 3
    assert all(row["peak_bytes"] > 1e8 for row in results["rows"])


def test_unknown_rows_are_refused(refuse, tmp_path):
    line = refuse("bench", "--rows", "speed", "--out", tmp_path / "r.json")
    assert "`--rows`" in line
    assert "speed" in line


def test_captions_without_images_are_refused(refuse, tmp_path):
    line = refuse(
        *("bench", "--captions", tmp_path / "captions.json"),
        *("--out", tmp_path / "r.json"),
    )
    assert "`--images`" in line
