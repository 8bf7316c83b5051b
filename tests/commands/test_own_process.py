"""`bmt train` with a frozen image model: photos are embedded elsewhere."""

import os
import subprocess
import sys

import pytest

CALLER = """
import subprocess, sys

subprocess.run([sys.executable, "-c", sys.argv[1]])
"""
EMBEDDER = """
import os, time
from bmt_keras.parent import end_with_parent

end_with_parent(os.getppid())
print("embeds", flush=True)
time.sleep(30)
print("goes on", flush=True)
"""

FROZEN = (
    *("--image-model", "MobileNetV2", "--no-image-trainable"),
    *("--image-height", 32, "--image-width", 32),
    *(
        "--text-hidden-dim",
        16,
        "--text-embedding-dim",
        8,
        "--text-intermediate-dim",
        16,
    ),
    *("--epochs", 1, "--batch-size", 4, "--fusion-num-layers", 1),
)


@pytest.fixture
def commands(monkeypatch):
    """The commands of the processes that are started."""
    started = []
    start = subprocess.run

    def record(command, **options):
        started.append(command)
        return start(command, **options)

    monkeypatch.setattr(subprocess, "run", record)
    return started


def test_frozen_model_embeds_photos_in_a_process_of_its_own(
    bmt, write_captions, tmp_path, commands
):
    out = tmp_path / "run"
    captions = write_captions(range(1, 11), name="photos")
    command = ["train", *captions, *FROZEN, "--out", out]
    result = bmt(*command)
    assert result.code == 0, result
    assert (out / "captioner" / "image_tower.keras").is_file()
    ((python, *arguments),) = commands
    assert python == sys.executable
    assert arguments[:3] == ["-m", "bmt_keras.commands", "prepare"]
    assert f"--parent={os.getpid()}" in arguments
    assert f"{out / 'cache'}: 8 training and 2 validation" in result.out
    # What is there is not embedded anew.
    assert bmt(*command).code == 0
    assert len(commands) == 1


def test_broken_photo_is_named_by_the_process_and_ends_the_run(
    bmt, write_captions, tmp_path
):
    captions = write_captions(range(1, 11), broken=[3])
    out = tmp_path / "run"
    result = bmt("train", *captions, *FROZEN, "--out", out)
    assert result.code == 2
    assert "3.jpg" in result.err
    assert "--skip-bad" in result.err
    assert not (out / "captioner").exists()


def test_killed_process_is_told(bmt, write_captions, tmp_path, monkeypatch):
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, -9),
    )
    out = tmp_path / "run"
    result = bmt("train", *write_captions(), *FROZEN, "--out", out)
    assert result.code == 2
    assert "embeds the photos was ended by signal 9" in result.err


def test_process_ends_when_the_run_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, EMBEDDER],
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout.readline() == "embeds\n"
        run.kill()
        # The pipe ends with the last process that can write into it.
        rest, _ = run.communicate(timeout=60)
    assert rest == ""
