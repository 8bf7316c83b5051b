"""Images are embedded in a process of its own, which never outlives the run."""

import subprocess
import sys

import pytest

from bmt_keras.training import run as training_run

# The file is imported anew in the process that it starts.
SCRIPT = """
import os, signal, sys, time

from bmt_keras.errors import InputError
from bmt_keras.training.own_process import call_in_own_process


def report(*, on_progress):
    assert os.getpid() != int(os.environ["BMT_TEST_CALLER"])
    for part in ("train", "val"):
        on_progress(part, 1, 2)


def refuse(*, on_progress):
    raise InputError("3.jpg cannot be read.")


def die(*, on_progress):
    os.kill(os.getpid(), signal.SIGKILL)


def crash(*, on_progress):
    raise RuntimeError("a fault")


def hang(*, on_progress):
    print("embeds", flush=True)
    time.sleep(60)
    print("goes on", flush=True)


if __name__ == "__main__":
    os.environ["BMT_TEST_CALLER"] = str(os.getpid())
    for name in sys.argv[1:]:
        try:
            call_in_own_process(globals()[name], on_progress=print)
        except InputError as error:
            print("refused:", error)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return [sys.executable, str(path)]


def test_end_of_the_process_is_reported(script):
    names = ("report", "refuse", "die", "crash")
    result = subprocess.run([*script, *names], capture_output=True, text=True)
    ended = "refused: The process that embeds the images ended"
    again = "the same command starts it again."
    assert result.stdout.splitlines() == [
        "train 1 2",
        "val 1 2",
        "refused: 3.jpg cannot be read.",
        f"{ended} by signal 9 (probably out of memory); {again}",
        f"{ended} with code 1; {again}",
    ], result.stderr
    assert "RuntimeError: a fault" in result.stderr


def test_process_ends_when_the_run_is_killed(script):
    with subprocess.Popen(
        [*script, "hang"], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout.readline() == "embeds\n"
        run.kill()
        # The pipe ends with the last process that can write into it.
        rest, _ = run.communicate(timeout=60)
    assert rest == ""


# === bmt train ===

FROZEN = (
    *("--image-model", "MobileNetV2", "--no-image-trainable"),
    *("--image-height", 32, "--image-width", 32),
    *("--text-hidden-dim", 16, "--text-embedding-dim", 8),
    *("--text-intermediate-dim", 16, "--fusion-num-layers", 1),
    *("--epochs", 1, "--batch-size", 4),
)


def test_frozen_tower_embeds_images_in_a_process_of_its_own(
    bmt, write_captions, tmp_path, monkeypatch
):
    called = []
    call = training_run.call_in_own_process

    def record(*arguments, **options):
        called.append(arguments)
        call(*arguments, **options)

    monkeypatch.setattr(training_run, "call_in_own_process", record)
    out = tmp_path / "run"
    command = ("train", *write_captions(range(1, 11)), *FROZEN, "--out", out)
    result = bmt(*command)
    assert result.code == 0, result
    assert (out / "captioner" / "image_tower.keras").is_file()
    assert len(called) == 1
    assert "Reading images (train): 8 of 8" in result.err
    assert "Reading images (val): 2 of 2" in result.err
    # What is there is not embedded anew.
    assert bmt(*command).code == 0
    assert len(called) == 1
