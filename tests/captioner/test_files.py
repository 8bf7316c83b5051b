import csv
import json
import logging
import shutil

import numpy as np
import pytest

from bmt_keras.captioner.files import caption_to_file, read_good_images
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.errors import InputError
from bmt_keras.image_files import find_images


@pytest.fixture
def folder(sample_photos, tmp_path):
    """Five pictures and a broken one, the last by name but one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, photo in enumerate(sample_photos[1][:5]):
        shutil.copy(photo.path, folder / f"{number + 10:03}.jpg")
    (folder / "0135.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("no photo either")
    return folder


@pytest.fixture
def images(folder):
    return find_images([folder])


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# === Features of many images ===


def captioned(paths):
    return [CaptionedImage(i, path, ("a",)) for i, path in enumerate(paths)]


def test_good_images_come_with_their_features(tiny_captioner, images, caplog):
    progress = []
    good, features = read_good_images(
        tiny_captioner,
        captioned(images),
        skip_bad=True,
        on_progress=lambda *counts: progress.append(counts),
    )
    assert [each.image_id for each in good] == [0, 1, 2, 3, 5]
    paths = [each.path for each in good]
    np.testing.assert_array_equal(features, tiny_captioner.read_features(paths))
    assert progress[-1] == (6, 6)
    assert f"1 of 6 photos cannot be read: {images[4]} (not a" in caplog.text


def test_images_that_cannot_be_read_are_refused(tiny_captioner, images):
    with pytest.raises(InputError, match=r"0135\.jpg .*--skip-bad"):
        read_good_images(tiny_captioner, captioned(images))
    with pytest.raises(InputError, match="can be read, found none among 1"):
        read_good_images(tiny_captioner, captioned([images[4]]), skip_bad=True)


# === What is written ===


def test_lines_hold_what_the_captioner_writes(tiny_captioner, images, tmp_path):
    out = tmp_path / "deep" / "captions.jsonl"
    bad = caption_to_file(tiny_captioner, images, out, batch_size=2)
    (message,) = bad
    assert message.startswith(f"{images[4]} (not a decodable image")
    rows = read_lines(out)
    assert [row["file"] for row in rows] == [str(path) for path in images]
    good = [row for row in rows if not row["error"]]
    expected = tiny_captioner.caption([row["file"] for row in good])
    assert [row["caption"] for row in good] == [c.text for c in expected]
    assert [len(row["tokens"]) for row in good] == [
        len(row["token_scores"]) for row in good
    ]
    assert (rows[4]["caption"], rows[4]["score"]) == ("", None)
    assert [path.name for path in out.parent.iterdir()] == ["captions.jsonl"]


def test_table_has_a_row_for_every_image(tiny_captioner, images, tmp_path):
    out = tmp_path / "captions.csv"
    caption_to_file(tiny_captioner, images, out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(path) for path in images]
    assert [bool(row["error"]) for row in rows] == [False] * 4 + [True, False]
    assert float(rows[0]["score"]) < 0


def test_results_of_coco_have_the_numbers_of_the_names(
    tiny_captioner, images, tmp_path
):
    out = tmp_path / "results.json"
    caption_to_file(tiny_captioner, images, out)
    results = json.loads(out.read_text())
    assert [row["image_id"] for row in results] == [10, 11, 12, 13, 14]
    assert all(set(row) == {"image_id", "caption"} for row in results)


# === After a stop ===


class StopError(Exception):
    pass


def test_stopped_work_goes_on_where_it_was(
    tiny_captioner, images, tmp_path, monkeypatch, caplog
):
    out = tmp_path / "captions.jsonl"

    def stop(done, total):
        if done >= 4:
            raise StopError

    with pytest.raises(StopError):
        caption_to_file(
            tiny_captioner, images, out, batch_size=2, on_progress=stop
        )
    assert not out.exists()
    (journal,) = tmp_path.glob(".captions.jsonl.*")
    with journal.open("a") as file:
        file.write('{"file": "half a li')  # as a kill leaves it
    captioned = []
    write = tiny_captioner.caption
    monkeypatch.setattr(
        tiny_captioner,
        "caption",
        lambda images: captioned.extend(images) or write(images),
    )
    caplog.set_level(logging.INFO)
    progress = []
    caption_to_file(
        tiny_captioner,
        images,
        out,
        batch_size=2,
        on_progress=lambda *counts: progress.append(counts),
    )
    assert "Going on after 4 images" in caplog.text
    assert progress == [(6, 6)]
    assert len(captioned) == 1  # of the two photos left, one is broken
    assert [row["file"] for row in read_lines(out)] == [str(p) for p in images]
    assert not journal.exists()


def test_other_controls_do_not_go_on(tiny_captioner, images, tmp_path):
    def stop(done, total):
        raise StopError

    out = tmp_path / "captions.jsonl"
    with pytest.raises(StopError):
        caption_to_file(tiny_captioner, images, out, on_progress=stop)
    with pytest.raises(InputError, match="whose `length` was None, not 4"):
        caption_to_file(tiny_captioner, images, out, length=4)


# === Bad requests ===


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("captions.txt", r"ends in \.jsonl, \.csv, \.json"),
        ("results.json", r"beach\.jpg: expected a number as the file's name"),
    ],
)
def test_other_names_are_refused(tiny_captioner, tmp_path, out, message):
    with pytest.raises(InputError, match=message):
        caption_to_file(
            tiny_captioner, [tmp_path / "beach.jpg"], tmp_path / out
        )
