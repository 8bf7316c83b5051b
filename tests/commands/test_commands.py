import numpy as np

from bmt_keras.commands.options import with_settings
from bmt_keras.data.features import FeatureSource
from bmt_keras.data.store import Shard
from bmt_keras.presets import PRESETS
from bmt_keras.settings import Settings

COMMANDS = (
    *("sample", "prepare", "pretrain", "train", "evaluate", "caption"),
    *("score", "export", "serve", "request"),
)


def test_every_command_has_help(bmt):
    listed = bmt("--help")
    assert (listed.code, listed.err) == (0, "")
    for command in COMMANDS:
        assert f" {command} " in listed.out
        result = bmt(command, "--help")
        assert (result.code, result.err) == (0, "")
        assert f"bmt {command}" in result.out


def test_help_of_training_shows_every_setting_in_120_lines(bmt, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
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


def test_prepared_photos_are_kept_by_side(
    bmt, prepare, write_captions, tmp_path
):
    cache = tmp_path / "cache"
    train, val = write_captions(), write_captions([11, 12], name="val")
    options = [*train, "--val-captions", val[1], "--val-images", val[3]]
    first, again = (bmt(*prepare, *options) for _ in "12")
    assert first.code == 0, first
    assert first.out == f"{cache}: 6 training and 2 validation images\n"
    assert levels(cache / "train") == [10, 20, 30, 40, 50, 60]
    assert levels(cache / "val") == [110, 120]
    # They are not read again.
    assert "Reading images (train): 6 of 6" in first.err
    assert (again.code, again.out, again.err) == (0, first.out, "")


def levels(folder):
    """The level of the middle pixel of each photo."""
    row = FeatureSource(8, 8).row
    shards = [Shard(x, 0, (), row, 0) for x in sorted(folder.glob("*.rows"))]
    rows = np.concatenate([shard.read()["features"] for shard in shards])
    return rows[:, 4, 4, 1].tolist()


def test_first_photos_are_kept_in_files_of_the_asked_size(
    bmt, prepare, write_captions, tmp_path
):
    cache = tmp_path / "cache"
    options = [*write_captions(), "--limit", 5, "--val-share", 0.4]
    result = bmt(*prepare, *options, "--shard-size", 2)
    assert "3 training and 2 validation images" in result.out
    assert len(list((cache / "train").glob("*.rows"))) == 2
    assert len(levels(cache / "train")) == 3


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
    given = {**dict.fromkeys(names), "passes": 3}
    wrapped(name="x", **given)
    assert received == {"name": "x", **given}
