import numpy as np

from bmt_keras.bench.photos import HEIGHT, WIDTH, write_photos
from bmt_keras.data.coco import read_coco_captions
from bmt_keras.data.photo_reader import decode_photos


def test_captions_are_as_long_as_people_write_them(tmp_path):
    write_photos(tmp_path, count=100)
    photos = read_coco_captions(tmp_path / "captions.json", tmp_path / "images")
    lengths = [len(c.split()) for photo in photos for c in photo.captions]
    assert len(lengths) == 500
    # Flickr8k's have a mean of 11.8 and a standard deviation of 3.9.
    assert abs(np.mean(lengths) - 11.8) < 0.6
    assert abs(np.std(lengths) - 3.9) < 0.5


def test_photos_can_be_read(tmp_path):
    write_photos(tmp_path, count=2)
    photos = read_coco_captions(tmp_path / "captions.json", tmp_path / "images")
    ((_, pixels, errors),) = decode_photos(photos, height=HEIGHT, width=WIDTH)
    assert errors == ["", ""]
    assert pixels.std() > 20
    sizes = [photo.path.stat().st_size for photo in photos]
    assert all(40_000 < size < 150_000 for size in sizes)
