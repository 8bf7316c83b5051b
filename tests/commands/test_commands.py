import numpy as np
import pytest

from bmt_keras import progress
from bmt_keras.commands.settings_options import with_settings
from bmt_keras.data.feature_shards import ShardLayout, map_shard
from bmt_keras.presets import PRESETS
from bmt_keras.progress import show_progress
from bmt_keras.settings import Settings

COMMANDS = (
    "sample",
    "prepare",
    "train",
    "evaluate",
    "caption",
    "export",
    "serve",
    "request",
)


def test_help_lists_the_commands(bmt):
    result = bmt("--help")
    assert (result.code, result.err) == (0, "")
    for command in COMMANDS:
        assert f" {command} " in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(bmt, command):
    result = bmt(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"bmt {command}" in result.out


def test_help_of_training_shows_every_setting_in_120_lines(bmt, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    shown = bmt("train", "--help").out
    assert len(shown.splitlines()) <= 120
    for option in Settings.options():
        assert f"--{option.name.replace('_', '-')} " in shown
        if option.field.type in (int, float):
            assert f"({option.field.default})" in shown


def test_preparation_takes_what_it_reads(bmt, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    shown = bmt("prepare", "--help").out
    for option in Settings.options():
        is_taken = option.group == "image" or option.name == "seed"
        assert (f"--{option.name.replace('_', '-')} " in shown) == is_taken


def test_resolved_settings_are_shown_without_the_required_options(
    bmt, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "110")
    arguments = ("--show-settings", "--preset", "small", "--epochs", 3)
    result = bmt("train", *arguments)
    assert (result.code, result.err) == (0, "")
    rows = {
        cells[1]: cells[2:4]
        for cells in (
            [cell.strip() for cell in line.split("│")]
            for line in result.out.splitlines()
        )
        if len(cells) > 3
    }
    assert len(rows) == len(list(Settings.options()))
    assert rows["--epochs"] == ["3", "command line"]
    assert rows["--mirror"] == ["on", "preset small"]
    batch_size = PRESETS["small"].batches.batch_size
    assert rows["--batch-size"] == [str(batch_size), "preset small"]
    assert "`epochs` must be" in bmt("train", *arguments[:3], "--epochs", 0).err


def test_interrupted_command_ends_with_its_code(bmt, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bmt_keras.sample.write_sample", interrupt)
    result = bmt("sample", "--out", tmp_path / "sample")
    assert result.code == 130
    assert "Traceback" not in result.err


# === sample and prepare ===


def test_sample_is_written(bmt, tmp_path):
    folder = tmp_path / "sample"
    for _ in range(2):  # the second time, it is there already
        result = bmt("sample", "--out", folder, "--train", 3, "--val", 2)
        assert (result.code, result.err) == (0, "")
        assert result.out == f"{folder}: 3 training and 2 validation pictures\n"
    assert len(list(folder.glob("images/*/*.jpg"))) == 5


def prepare(folder, *options):
    size = ("--image-height", 8, "--image-width", 10)
    return ["prepare", *size, "--cache", folder, *options]


def test_prepared_photos_are_kept_by_side(bmt, write_captions, tmp_path):
    cache = tmp_path / "cache"
    train, val = write_captions(), write_captions([11, 12], name="val")
    options = [*train, "--val-captions", val[1], "--val-images", val[3]]
    result = bmt(*prepare(cache, *options))
    assert result.code == 0, result
    assert result.out == f"{cache}: 6 training and 2 validation images\n"
    assert levels(cache / "train") == [10, 20, 30, 40, 50, 60]
    assert levels(cache / "val") == [110, 120]


def levels(folder):
    """The level of the middle pixel of each photo."""
    layout = ShardLayout((8, 10, 3), np.dtype(np.uint8))
    shards = sorted(folder.glob("*.rows"))
    rows = [map_shard(path, layout)["features"] for path in shards]
    return np.concatenate(rows)[:, 4, 4, 1].tolist()


def test_shard_size_is_that_of_the_files(bmt, write_captions, tmp_path):
    cache = tmp_path / "cache"
    options = [*write_captions(), "--val-share", 0.2, "--shard-size", 2]
    assert bmt(*prepare(cache, *options)).code == 0
    assert len(list((cache / "train").glob("*.rows"))) == 3
    assert len(levels(cache / "train")) == 5


def test_limit_takes_the_first_photos(bmt, write_captions, tmp_path):
    options = [*write_captions(), "--limit", 4, "--val-share", 0.5]
    result = bmt(*prepare(tmp_path / "cache", *options))
    assert "2 training and 2 validation images" in result.out


def test_prepared_photos_are_not_read_again(bmt, write_captions, tmp_path):
    arguments = prepare(tmp_path / "cache", *write_captions())
    first, again = bmt(*arguments), bmt(*arguments)
    assert "Reading images (train): 5 of 5" in first.err
    assert (again.code, again.out, again.err) == (0, first.out, "")


# === Options of settings ===


def test_command_receives_what_was_given():
    received = {}

    def command(name, *, overrides):
        """Does nothing."""
        received.update(overrides, name=name)

    wrapped = with_settings("decoding", "seed")(command)
    assert (wrapped.__name__, wrapped.__doc__) == ("command", "Does nothing.")
    names = set(wrapped.__signature__.parameters) - {"name"}
    assert names == {
        option.name
        for option in Settings.options()
        if option.group == "decoding" or option.name == "seed"
    }
    wrapped(name="x", **{**dict.fromkeys(names), "passes": 3})
    assert received == {"name": "x", "passes": 3}


# === Progress ===


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until the test sets it, in seconds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def set_to(seconds):
        now[0] = 100.0 + seconds

    return set_to


def test_lines_come_now_and_then_and_at_the_end(clock, capsys):
    with show_progress("Reading images") as on_progress:
        for seconds, done in ((1, 10), (14, 140), (20, 200), (30, 300)):
            clock(seconds)
            on_progress("train", done, 400)
        clock(40)
        on_progress("train", 400, 400)
    assert capsys.readouterr().err.splitlines() == [
        "Reading images (train): 200 of 400, 20 s left, 10.0/s",
        "Reading images (train): 400 of 400, 0 s left, 10.0/s",
    ]


def test_rate_of_a_lot_counts_from_the_end_of_the_one_before(clock, capsys):
    with show_progress("Reading images") as on_progress:
        for seconds, lot in ((2, "train"), (6, "val")):
            clock(seconds)
            on_progress(lot, 16, 16)
    assert capsys.readouterr().err.splitlines() == [
        "Reading images (train): 16 of 16, 0 s left, 8.0/s",
        "Reading images (val): 16 of 16, 0 s left, 4.0/s",
    ]
