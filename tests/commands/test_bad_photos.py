"""Captions, photos and caches that cannot be used: one line and code 2."""

import json

import pytest

# === The captions file ===


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def with_equal_image_ids(content):
    content["images"][1]["id"] = content["images"][0]["id"]


def with_equal_annotation_ids(content):
    content["annotations"][2]["id"] = content["annotations"][0]["id"]


def with_an_empty_caption(content):
    content["annotations"][3]["caption"] = "  "


def with_a_foreign_annotation(content):
    content["annotations"][1]["image_id"] = 99


def without_captions(content):
    content["annotations"] = []


def without_images(content):
    del content["images"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (with_equal_image_ids, "images[1]: the image id 1 is a duplicate."),
        (
            with_equal_annotation_ids,
            "annotations[2]: the annotation id 0 is a duplicate.",
        ),
        (with_an_empty_caption, "annotations[3]: expected a caption, found an"),
        (with_a_foreign_annotation, "annotations[1]: expected an `image_id`"),
        (without_captions, "expected captions in `annotations`, found none."),
        (without_images, "an object with a list `images`, found none."),
    ],
)
def test_bad_captions_are_refused(
    refuse, reading, write_captions, edit, message
):
    options = write_captions()
    change(options[1], edit)
    line = refuse(*reading, *options)
    assert f"{options[1]}: " in line
    assert message in line


def test_missing_captions_file_is_refused(refuse, reading, tmp_path):
    gone = tmp_path / "gone.json"
    line = refuse(*reading, "--captions", gone, "--images", tmp_path)
    assert f"{gone}: expected a captions file" in line


def test_malformed_json_is_refused_with_its_place(
    refuse, reading, write_captions
):
    options = write_captions()
    options[1].write_text('{"images": [}')
    line = refuse(*reading, *options)
    assert f"{options[1]}: expected JSON, found a fault at line 1" in line


def test_missing_photo_folder_is_refused(
    refuse, reading, write_captions, tmp_path
):
    options = write_captions()[:2]
    line = refuse(*reading, *options, "--images", tmp_path / "gone")
    assert f"{tmp_path / 'gone'}: expected a folder of photos" in line


def test_half_of_the_validation_options_is_refused(
    refuse, reading, write_captions
):
    options = write_captions()
    line = refuse(*reading, *options, "--val-captions", options[1])
    assert "`val_captions` and `val_images` must be given together" in line


def test_bad_validation_captions_are_refused(refuse, reading, write_captions):
    options, val = write_captions(), write_captions(name="val")
    change(val[1], without_captions)
    line = refuse(
        *reading, *options, "--val-captions", val[1], "--val-images", val[3]
    )
    assert f"{val[1]}: expected captions" in line


def test_share_that_leaves_no_validation_photo_is_refused(
    refuse, reading, write_captions
):
    line = refuse(*reading, *write_captions(), "--val-share", 0.01)
    assert "`val_share` must leave photos on both sides" in line


# === Photos ===


@pytest.mark.parametrize(
    ("faults", "found"),
    [({"absent": [3]}, "no such file"), ({"broken": [3]}, "not a decodable")],
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
    assert f"{tmp_path / 'cache' / 'train'}: expected features of" in line
