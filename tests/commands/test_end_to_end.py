"""From a generated picture to a caption over gRPC, by the commands alone."""

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest

TINY = (
    *("--text-hidden-dim=16", "--text-embedding-dim=8", "--text-num-layers=1"),
    *("--text-intermediate-dim=16", "--text-num-heads=2"),
    *("--fusion-num-heads=2", "--fusion-num-layers=1"),
    *("--epochs=1", "--batch-size=16"),
)


@pytest.fixture
def done(bmt):
    """Runs a command that must succeed; gives what it wrote."""

    def run(*arguments):
        result = bmt(*arguments)
        assert result.code == 0, result
        return result.out

    return run


@pytest.mark.slow
def test_sample_is_trained_exported_served_and_requested(done, tmp_path):
    sample, run, models = (tmp_path / n for n in ("sample", "run", "models"))
    done("sample", "--out", sample, "--train", 32, "--val", 8)
    train, val = (
        (sample / f"captions_{side}.json", sample / "images" / side)
        for side in ("train", "val")
    )
    done(
        *("train", "--captions", train[0], "--images", train[1]),
        *("--val-captions", val[0], "--val-images", val[1]),
        *("--out", run, *TINY),
    )
    done(
        *("evaluate", "--captioner", run / "captioner", "--out", run),
        *("--captions", val[0], "--images", val[1]),
        *("--facts", sample / "facts_val.json"),
    )
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"truth", "truth_shuffled", "cider_d", "bleu_4"} <= set(metrics)
    results = json.loads((run / "predictions.json").read_text())
    assert len(results) == 8
    for picture in ("grid.png", "curves.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    done("export", "--captioner", run / "captioner", "--out", models)
    card = (models / "1" / "README.md").read_text()
    assert f"| cider_d | {metrics['cider_d']:.4g} |" in card
    photos = sorted(val[1].iterdir())[:3]
    offline = done("caption", *photos, "--captioner", run / "captioner")
    with serve(models) as server:
        served = done("request", *photos, "--server", server)
    assert served == offline
    assert len(served.splitlines()) == 3


@contextmanager
def serve(models):
    """The embedded server as a process of its own; gives its address."""
    code = "from bmt_keras.commands import main; main()"
    arguments = ("serve", "--models", str(models), "--port", "0")
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("Serving bmt version 1 at "), line
        yield line.split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
