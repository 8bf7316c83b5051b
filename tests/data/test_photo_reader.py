from pathlib import Path

import numpy as np
import pytest

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.photo_reader import decode_photos, report_unreadable
from bmt_keras.errors import InputError


def test_batches_keep_the_photos_order(make_photos):
    photos = make_photos([3, 1, 2, 5, 4])
    batches = list(decode_photos(photos, height=4, width=6, batch_size=2))
    assert [len(batch) for batch, _, _ in batches] == [2, 2, 1]
    assert [photo for batch, _, _ in batches for photo in batch] == photos
    pixels = np.concatenate([pixels for _, pixels, _ in batches])
    assert (pixels.shape, pixels.dtype) == ((5, 4, 6, 3), np.uint8)
    expected = np.zeros((5, 4, 6, 3))
    expected[..., 0] = np.reshape([30, 10, 20, 50, 40], (5, 1, 1))
    np.testing.assert_array_equal(pixels, expected)
    assert not any(error for _, _, errors in batches for error in errors)


def test_bad_photos_are_told_apart(make_photos, tmp_path):
    photos = make_photos([1, 2], broken=[2])
    (tmp_path / "folder.png").mkdir()
    photos += [
        CaptionedImage(3, tmp_path / "gone.png", ("a",)),
        CaptionedImage(4, tmp_path / "folder.png", ("a",)),
        CaptionedImage(5, tmp_path / "no\0name.png", ("a",)),
        CaptionedImage(6, tmp_path / "no\ud800name.png", ("a",)),
        *make_photos([7]),
    ]
    ((_, pixels, errors),) = decode_photos(photos, height=4, width=6)
    assert errors[0] == errors[6] == ""
    assert errors[1].startswith("not a decodable image")
    assert errors[2:6] == ["no such file"] * 4
    assert pixels[:, 0, 0, 0].tolist() == [10, 0, 0, 0, 0, 0, 70]


def test_no_photos_give_no_batches():
    assert list(decode_photos([], height=4, width=6)) == []


def test_no_bad_photos_are_no_error(caplog):
    report_unreadable([], 7, skip_bad=False)
    report_unreadable([], 7, skip_bad=True)
    assert not caplog.records


def test_bad_photos_are_counted_and_the_first_named():
    bad = [str(Path("photos", f"{n}.jpg")) for n in range(7)]
    with pytest.raises(InputError) as error:
        report_unreadable(bad, 90, skip_bad=False)
    message = str(error.value)
    assert message.startswith("7 of 90 photos cannot be read: ")
    assert "; ".join(bad[:5]) + "; …" in message
    assert bad[5] not in message
    assert "--skip-bad" in message


def test_skipped_photos_are_told_in_the_log(caplog):
    report_unreadable(["a.jpg (gone)"], 2, skip_bad=True)
    assert caplog.messages == [
        "1 of 2 photos cannot be read: a.jpg (gone). They are left out."
    ]
