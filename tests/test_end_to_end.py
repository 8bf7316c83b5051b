"""From a generated picture to a caption over gRPC, by the commands alone."""

import json
import subprocess
import sys

import pytest

TINY = (
    "--text-hidden-dim=16",
    "--text-embedding-dim=8",
    "--text-intermediate-dim=16",
    "--text-num-heads=2",
    "--fusion-num-heads=2",
    "--fusion-num-layers=1",
    "--text-num-layers=1",
    "--epochs=1",
    "--batch-size=16",
)


def bmt(*arguments, **options):
    code = "from bmt_keras.commands import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, **options
    )


@pytest.mark.slow
def test_sample_is_trained_exported_served_and_requested(tmp_path):
    sample, run, models = (tmp_path / n for n in ("sample", "run", "models"))
    bmt("sample", "--out", sample, "--train", 32, "--val", 8)
    sides = {
        "--captions": sample / "captions_train.json",
        "--images": sample / "images" / "train",
        "--val-captions": sample / "captions_val.json",
        "--val-images": sample / "images" / "val",
    }
    given = [part for pair in sides.items() for part in pair]
    bmt("train", *given, "--out", run, *TINY)
    bmt(
        *("evaluate", "--captioner", run / "captioner", "--out", run),
        *("--captions", sides["--val-captions"]),
        *("--images", sides["--val-images"]),
        *("--facts", sample / "facts_val.json"),
    )
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"truth", "truth_shuffled", "cider_d", "bleu_4"} <= set(metrics)
    results = json.loads((run / "predictions.json").read_text())
    assert len(results) == 8
    for picture in ("grid.png", "curves.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    bmt("export", "--captioner", run / "captioner", "--out", models)
    card = (models / "1" / "README.md").read_text()
    assert f"| cider_d | {metrics['cider_d']:.4g} |" in card
    photos = sorted((sample / "images" / "val").iterdir())[:3]
    offline = bmt("caption", *photos, "--captioner", run / "captioner")
    with _serve(models) as server:
        served = bmt("request", *photos, "--server", server)
    assert served.stdout == offline.stdout
    assert len(served.stdout.splitlines()) == 3


class _serve:
    """The embedded server as a process of its own, on a free port."""

    def __init__(self, models):
        code = "from bmt_keras.commands import main; main()"
        arguments = ("serve", "--models", str(models), "--port", "0")
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", code, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        line = self._process.stdout.readline()
        assert line.startswith("Serving bmt version 1 at "), (
            self._process.stderr.read()
        )
        return line.split()[-1]

    def __exit__(self, *error):
        self._process.terminate()
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0
