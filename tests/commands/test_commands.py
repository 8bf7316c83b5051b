import numpy as np
import pytest

from bmt_keras.commands import progress, settings_options
from bmt_keras.commands.progress import show_progress
from bmt_keras.commands.settings_options import to_arguments, with_settings
from bmt_keras.data.features import FeatureSource
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


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_every_setting_is_an_option(bmt, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = bmt(command, "--help").out
    for field in Settings.options():
        assert f"--{field.name.replace('_', '-')}" in shown


def test_interrupted_command_ends_with_its_code(bmt, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bmt_keras.sample.write_sample", interrupt)
    result = bmt("sample", "--out", tmp_path / "sample")
    assert result.code == 130
    assert "Traceback" not in result.err


# === sample and prepare ===


def test_sample_is_written_and_told(bmt, tmp_path):
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
    assert result.out == f"{cache}: 6 training and 2 validation photos\n"
    assert levels(cache / "train") == [10, 20, 30, 40, 50, 60]
    assert levels(cache / "val") == [110, 120]


def levels(folder):
    """The level of the middle pixel of each photo."""
    row = FeatureSource(8, 10).row
    shards = sorted(folder.glob("*.rows"))
    # A file ends with a checksum of 4 bytes.
    rows = [np.frombuffer(path.read_bytes()[:-4], row) for path in shards]
    return np.concatenate(rows)["features"][:, 4, 4, 1].tolist()


def test_shard_size_is_that_of_the_files(bmt, write_captions, tmp_path):
    cache = tmp_path / "cache"
    options = [*write_captions(), "--val-share", 0.2, "--shard-size", 2]
    assert bmt(*prepare(cache, *options)).code == 0
    assert len(list((cache / "train").glob("*.rows"))) == 3
    assert len(levels(cache / "train")) == 5


def test_limit_takes_the_first_photos(bmt, write_captions, tmp_path):
    options = [*write_captions(), "--limit", 4, "--val-share", 0.5]
    result = bmt(*prepare(tmp_path / "cache", *options))
    assert "2 training and 2 validation photos" in result.out


def test_prepared_photos_are_not_read_again(bmt, write_captions, tmp_path):
    arguments = prepare(tmp_path / "cache", *write_captions())
    first, again = bmt(*arguments), bmt(*arguments)
    assert "Reading photos (train): 5 of 5" in first.err
    assert (again.code, again.out, again.err) == (0, first.out, "")


# === Options of settings ===


def test_command_receives_what_was_given_and_none_for_the_rest():
    received = {}

    def command(name, *, overrides):
        """Does nothing."""
        received.update(overrides, name=name)

    given = dict.fromkeys(f.name for f in Settings.options())
    with_settings(command)(name="x", **{**given, "epochs": 3})
    assert received == {**given, "epochs": 3, "name": "x"}


def test_wrapped_command_keeps_its_name_and_help():
    def command(*, overrides):
        """Does nothing."""

    wrapped = settings_options.with_settings(command)
    assert (wrapped.__name__, wrapped.__doc__) == ("command", "Does nothing.")


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
    with show_progress("Reading photos") as on_progress:
        for seconds, done in ((1, 10), (14, 140), (20, 200), (30, 300)):
            clock(seconds)
            on_progress("train", done, 400)
        clock(40)
        on_progress("train", 400, 400)
    assert capsys.readouterr().err.splitlines() == [
        "Reading photos (train): 200 of 400, 10/s, 20 s left",
        "Reading photos (train): 400 of 400, 10/s, 0 s left",
    ]


def test_rate_of_a_lot_counts_from_the_end_of_the_one_before(clock, capsys):
    with show_progress("Reading photos") as on_progress:
        for seconds, lot in ((2, "train"), (6, "val")):
            clock(seconds)
            on_progress(lot, 16, 16)
    assert capsys.readouterr().err.splitlines() == [
        "Reading photos (train): 16 of 16, 8/s, 0 s left",
        "Reading photos (val): 16 of 16, 4/s, 0 s left",
    ]


def test_options_are_written_as_they_are_typed():
    values = {
        "image_layer": "mixed 8",
        "limit": 3,
        "train_text_model": False,
        "pretrained_head": True,
        "val_captions": None,
    }
    assert to_arguments(values) == [
        "--image-layer=mixed 8",
        "--limit=3",
        "--no-text-trainable",
        "--pretrained-head",
    ]
