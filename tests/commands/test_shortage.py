"""No memory, no space, no end: a sentence that says what to do."""

import errno
import os
import signal
import subprocess
import sys
import types

import pytest

from bmt_keras import commands
from bmt_keras.atomic import write_atomically
from bmt_keras.data import store
from bmt_keras.errors import InputError

ResourceExhaustedError = type("ResourceExhaustedError", (Exception,), {})
SPACE = (errno.ENOSPC, os.strerror(errno.ENOSPC))
LESS = "give a smaller --batch-size (see --gradient-accumulation-steps)."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), f"Out of memory (of the host); {LESS}"),
        (
            type("_ArrayMemoryError", (MemoryError,), {})("3 GiB"),
            f"Out of memory (3 GiB); {LESS}",
        ),
        (
            ResourceExhaustedError("OOM when allocating\n on GPU:0"),
            f"Out of memory (OOM when allocating on GPU:0); {LESS}",
        ),
        (
            OSError(*SPACE, "runs/x"),
            "[Errno 28] No space left on device: 'runs/x'; free some space, "
            "or give another folder.",
        ),
        (
            ResourceExhaustedError("runs/x; No space left on device"),
            "runs/x; No space left on device; free some space, or give "
            "another folder.",
        ),
    ],
)
def test_shortage_is_one_line(
    bmt, write_captions, tmp_path, monkeypatch, error, line
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("bmt_keras.training.run.train", fail)
    result = bmt("train", *write_captions(), "--out", tmp_path / "run")
    assert (result.code, result.err) == (2, f"bmt: {line}\n")


def test_file_without_room_is_named(tmp_path):
    path = tmp_path / "metrics.json"
    with (
        pytest.raises(OSError, match=r"metrics.json'$"),
        write_atomically(path),
    ):
        raise OSError(*SPACE)
    assert list(tmp_path.iterdir()) == []


def test_what_is_needed_is_known_before_it_is_written(tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=2 * 10**9)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage)
    store.check_space(tmp_path / "x", 2 * 10**9)
    with pytest.raises(InputError, match=r"x: expected 3.21 GB of free space"):
        store.check_space(tmp_path / "x", 3_210_000_000)


HOLD = """
import sys, time
from pathlib import Path
from bmt_keras.data.store import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_killed_holder_of_a_folder_holds_nothing(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        for _ in "12":  # a refusal leaves the holder's name
            with (
                pytest.raises(InputError, match=f"process {holder.pid} on "),
                store.lock_folder(folder),
            ):
                pass
        os.kill(holder.pid, signal.SIGKILL)
    with store.lock_folder(folder):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "goes_on"),
    [
        (["train"], True),
        (["pretrain"], True),
        (["prepare"], True),
        (["caption", "a.jpg", "--out=a.csv"], True),
        (["caption", "a.jpg", "--out", "a.csv"], True),
        (["caption", "a.jpg"], False),
        (["evaluate", "--out", "x"], False),
        (["sample", "--out", "x"], False),
        ([], False),
    ],
)
def test_command_goes_on_where_it_says_so(
    monkeypatch, capsys, arguments, goes_on
):
    monkeypatch.setattr(sys, "argv", ["bmt", *arguments])
    monkeypatch.setattr(commands, "app", lambda: sys.exit(130))
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert end.value.code == 130
    rest = "; the same command goes on" if goes_on else ""
    assert capsys.readouterr().err == f"bmt: Interrupted{rest}.\n"
