"""Stores that were killed, damaged, or are of something else."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bmt_keras.data.store import ShardedRows, open_store
from bmt_keras.errors import InputError

ROW = np.dtype([("value", "<f2", (2,)), ("number", "<i8")])
ITEMS = range(95)


def open_at(folder, visit, *, seed=1, shard_size=10, first=lambda: None):
    """Opens the store; `visit` gets each item before it is computed."""

    def parts(shard):
        for i in shard.items:
            visit(i)
            yield np.array(([i, i / 2], i), ROW)

    def compute(shards):
        first()
        for shard in shards:
            shard.write(parts(shard))

    options = {"shard_size": shard_size, "compute": compute}
    return open_store(
        folder, ITEMS, row=ROW, settings={"seed": seed}, **options
    )


def kill_in_the_eighth_shard(item):
    if item == 75:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    open_at(Path(sys.argv[1]), kill_in_the_eighth_shard)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "caches" / "train"


@pytest.fixture
def opened(folder):
    """Opens the store; `opened.computed` are the items computed for it."""

    def opened(*, until=1000, **options):
        def visit(item):
            if item == until:
                raise InterruptedError
            opened.computed.append(item)

        opened.computed = []
        return open_at(folder, visit, **options)

    return opened


def files(folder):
    return sorted(folder.glob("[0-9]*.rows"))


def hidden(folder):
    return folder.with_name(".train.partial")


def assert_right(shards):
    rows = np.concatenate(shards)
    assert rows["number"].tolist() == list(ITEMS)
    np.testing.assert_array_equal(rows["value"][:, 1], np.array(ITEMS) / 2)


def test_rows_lie_in_shards_with_a_manifest(opened, folder):
    shards = opened()
    assert_right(shards)
    assert all(isinstance(shard, np.memmap) for shard in shards)
    with pytest.raises(ValueError, match="read-only"):
        shards[0]["number"] = 0
    assert [path.name for path in files(folder)] == [
        f"{number:05d}-of-00010.rows" for number in range(10)
    ]
    assert set(folder.iterdir()) == {*files(folder), folder / "manifest.json"}
    assert list(folder.parent.iterdir()) == [folder]
    # Opened, with the size of shards that it has.
    assert_right(opened(shard_size=33))
    assert opened.computed == []


def test_shard_without_rows_is_sound(folder):
    def compute(shards):
        for shard in shards:
            shard.write([])

    for _ in range(2):
        (rows,) = open_store(
            folder, [1], row=ROW, settings={}, shard_size=3, compute=compute
        )
        assert (rows.shape, rows.dtype) == ((0,), ROW)


# === Going on ===


def test_killed_run_loses_one_shard_at_most(opened, folder, caplog):
    command = [sys.executable, __file__, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not folder.exists()
    done = files(hidden(folder))
    assert len(done) == 7
    written = [path.stat().st_mtime_ns for path in done]
    # What the killed run was writing.
    (leftover,) = hidden(folder).glob(".*.rows")
    with caplog.at_level(logging.INFO):
        assert_right(opened())
    assert "7 of 10 shards are there" in caplog.text
    assert opened.computed == list(range(70, 95))
    assert [p.stat().st_mtime_ns for p in files(folder)[:7]] == written
    assert list(folder.parent.iterdir()) == [folder]
    assert not (folder / leftover.name).exists()


def test_run_goes_on_as_it_began_without_foreign_leftovers(opened, folder):
    with pytest.raises(InterruptedError):
        opened(until=25)
    assert len(files(hidden(folder))) == 2
    (hidden(folder) / "tasks").mkdir()
    (hidden(folder) / "tasks" / "1.json").write_text("{}")
    assert_right(opened(shard_size=33))
    assert opened.computed == list(range(20, 95))
    assert len(files(folder)) == 10
    assert not (folder / "tasks").exists()


def test_unfinished_store_of_other_settings_is_begun_anew(opened):
    with pytest.raises(InterruptedError):
        opened(until=25)
    assert_right(opened(seed=2))
    assert opened.computed == list(ITEMS)
    assert_right(opened(seed=2))


def test_failure_in_the_first_shard_leaves_nothing_behind(opened, folder):
    with pytest.raises(InterruptedError):
        opened(until=5)
    assert list(folder.parent.iterdir()) == []


def test_two_processes_do_not_write_one_store(opened):
    def open_again():
        with pytest.raises(InputError, match="train: another process is"):
            opened()

    assert_right(opened(first=open_again))


# === Damage ===


def flip(position):
    def flip(path):
        content = bytearray(path.read_bytes())
        content[position] ^= 4
        path.write_bytes(content)

    return flip


def cut(size):
    return lambda path: path.write_bytes(path.read_bytes()[:-size])


def take_the_next_ones_place(path):
    path.write_bytes(files(path.parent)[4].read_bytes())


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (flip(0), "the checksum is another one"),
        (flip(50), "the checksum is another one"),
        (flip(-1), "the checksum is another one"),
        (cut(3), "expected rows of 12 bytes, found 117 bytes"),
        (cut(ROW.itemsize), "the checksum is another one"),
        (cut(124), "expected rows of 12 bytes, found -4 bytes"),
        (take_the_next_ones_place, "the checksum is another one"),
    ],
)
def test_damaged_shard_is_computed_again(
    opened, folder, finished, damage, found, caplog
):
    opened()
    at = hidden(folder)
    path = (folder if finished else at) / files(folder)[3].name
    if not finished:
        folder.rename(at)
    damage(path)
    assert_right(opened())
    assert opened.computed == list(range(30, 40))
    warning = f"{at / path.name} is computed again: {found}"
    assert warning in caplog.text
    assert list(folder.parent.iterdir()) == [folder]


def test_lost_shard_is_computed_again(opened, folder, caplog):
    opened()
    files(folder)[9].unlink()
    assert_right(opened())
    assert opened.computed == list(range(90, 95))
    assert "computed again" not in caplog.text


# === Something else ===


def test_store_of_other_settings_is_refused(opened, folder):
    opened()
    rule = "train: .* `seed` is 1 there, expected 2; delete the folder"
    with pytest.raises(InputError, match=rule):
        opened(seed=2)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["settings"]["row"][0][1] = "<f4"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"`row` is .*<f4.* there"):
        opened()


def test_folder_without_a_sound_manifest_is_refused(opened, folder):
    opened()
    for content in (
        b"",
        b"[1, 2]",
        b'{"settings": ',
        b"\xff\xfe",
        b'{"settings": 3, "shard_size": 4}',
        b'{"settings": {}, "shard_size": "x"}',
        b'{"settings": {}}',
        None,
    ):
        (folder / "manifest.json").unlink()
        if content is not None:
            (folder / "manifest.json").write_bytes(content)
        with pytest.raises(InputError, match="train: expected the folder of a"):
            opened()


def test_file_in_place_of_the_folder_is_refused(opened, folder):
    folder.parent.mkdir()
    folder.write_text("mine")
    with pytest.raises(InputError, match="train: expected the folder of a"):
        opened()
    assert folder.read_text() == "mine"


# === Rows of many arrays ===

WHOLE = np.arange(24, dtype=np.float16).reshape(6, 2, 2)


@pytest.fixture
def rows():
    return ShardedRows([WHOLE[:1], WHOLE[1:1], WHOLE[1:4], WHOLE[4:]])


def test_rows_are_those_of_one_array(rows):
    for index in (
        *(0, -1, np.int64(4)),
        *(slice(None), slice(5, 0, -2), slice(0, 0)),
        *([5, 0, 0, 3], [-2, 1], np.array([[0, 5], [4, 2]])),
        np.array([True, False, False, True, False, True]),
        np.array([], int),
    ):
        found = rows[index]
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, WHOLE[index])
        assert found.shape == WHOLE[index].shape


def test_whole_is_an_array(rows):
    assert (rows.shape, rows.dtype, len(rows)) == ((6, 2, 2), np.float16, 6)
    np.testing.assert_array_equal(np.asarray(rows), WHOLE)
    np.testing.assert_array_equal(list(rows), WHOLE)
    assert np.asarray(rows, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="`copy` must not be False"):
        np.array(rows, copy=False)
    for index in (6, -7, [0, 6], (0, 1)):
        with pytest.raises(IndexError):
            rows[index]
