"""Captions, photos and caches that cannot be used: one line and code 2."""

import json
from pathlib import Path

import pytest

# === The captions file ===


def empty(path):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (empty, "expected captions, found none."),
        (Path.unlink, "expected a captions file"),
        (
            lambda path: path.write_text('{"images": [}'),
            "expected JSON, found a fault: ",
        ),
    ],
)
@pytest.mark.parametrize("side", ["train", "val"])
def test_bad_captions_are_refused(
    refuse, reading, write_captions, edit, message, side
):
    options, val = write_captions(), write_captions(name="val")
    bad = options[1] if side == "train" else val[1]
    edit(bad)
    line = refuse(
        *reading, *options, "--val-captions", val[1], "--val-images", val[3]
    )
    assert f"{bad}: {message}" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "gone"], "gone: expected a folder of photos"),
        (["--val-captions", __file__], "and `val_images` must be given tog"),
        *(
            (["--val-share", share], "`val_share` must leave photos on both")
            for share in (0.01, 1.5, -0.5)
        ),
    ],
)
def test_photos_that_make_no_two_sides_are_refused(
    refuse, reading, write_captions, options, message
):
    assert message in refuse(*reading, *write_captions(), *options)


def test_wrong_folder_of_photos_is_recognised(
    refuse, reading, write_captions, tmp_path
):
    options = write_captions()
    line = refuse(*reading, *options, "--images", tmp_path)
    assert f"none of the 6 photos of {options[1]} is there" in line
    assert f"did you mean {options[3]}?" in line


def test_bad_caption_is_named(refuse, reading, write_captions):
    options = write_captions()
    content = json.loads(options[1].read_text())
    content["annotations"][2]["caption"] = None
    options[1].write_text(json.dumps(content))
    line = refuse(*reading, *options)
    assert "annotations[2]: expected text in `caption`, found None" in line


def test_split_that_the_captions_have_not_is_refused(
    refuse, reading, write_captions
):
    line = refuse(*reading, *write_captions(), "--split", "train")
    assert "`split` (--split) must be one of the file's, which are none" in line


# === Photos ===


@pytest.mark.parametrize(
    ("faults", "found"),
    [({"absent": [3]}, "expected an"), ({"broken": [3]}, "not a decodable")],
)
def test_photo_that_cannot_be_read_is_named(
    bmt, prepare, write_captions, tmp_path, faults, found
):
    options = write_captions(**faults)
    result = bmt(*prepare, *options, "--val-share", 0.2, "--seed", 0)
    assert (result.code, result.out) == (2, "")
    # Lines of progress come first.
    lines = [x for x in result.err.splitlines() if x.startswith("bmt: ")]
    assert lines == result.err.splitlines()[-1:]
    assert "1 of 5 photos cannot be read: " in lines[0]
    assert f"{options[3] / '3.jpg'} ({found}" in lines[0]
    assert "leave them out by --skip-bad" in lines[0]
    assert "Traceback" not in result.err
    assert not list((tmp_path / "cache").iterdir())


def test_skipped_photos_leave_a_cache_of_the_others(
    bmt, prepare, write_captions, tmp_path
):
    options = write_captions(broken=[3], absent=[5])
    result = bmt(*prepare, *options, "--skip-bad", "--val-share", 0.2)
    assert result.code == 0, result
    assert result.out == (
        f"{tmp_path / 'cache'}: 3 training and 1 validation images\n"
    )
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {
        "train",
        "val",
    }


def test_cache_of_other_settings_is_refused(
    bmt, refuse, prepare, write_captions
):
    options = write_captions()
    assert bmt(*prepare, *options).code == 0
    line = refuse(*prepare, *options, "--image-width", 9)
    assert "the cache was written with other settings: `width` is 8" in line


def test_folder_of_something_else_is_no_cache(
    refuse, prepare, write_captions, tmp_path
):
    (tmp_path / "cache" / "train").mkdir(parents=True)
    line = refuse(*prepare, *write_captions())
    folder = tmp_path / "cache" / "train"
    assert f"{folder}: expected the folder of a cache" in line
