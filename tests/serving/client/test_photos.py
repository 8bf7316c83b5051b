"""Photos shrink to a size, and tensors are read in both forms."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.serving.client.shrinking import shrink_photo
from bmt_keras.serving.client.wire import make_ints, make_strings, read_rows
from bmt_keras.serving.server.tensors import make_tensor_proto


def draw(height, width, *, noise):
    """A gradient, with as much noise as asked: noise is hard to compress."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2] = np.linspace(0, 200, width)
    grain = np.random.default_rng(0).integers(0, noise + 1, pixels.shape)
    return pixels + grain.astype(np.uint8)


def encode(pixels, suffix=".png"):
    return cv2.imencode(suffix, pixels)[1].tobytes()


# === Shrinking ===


def test_photo_keeps_its_pixels_where_jpeg_is_enough():
    pixels = draw(100, 160, noise=0)
    bmp = encode(pixels, ".bmp")
    jpeg = shrink_photo(bmp, 20_000)
    assert len(jpeg) <= 20_000 < len(bmp)
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).max() < 12


@pytest.mark.parametrize("limit", [3_000, 10_000, 40_000])
def test_photo_is_scaled_down_until_it_fits(limit):
    jpeg = shrink_photo(encode(draw(300, 600, noise=50)), limit)
    assert limit / 4 < len(jpeg) <= limit
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    height, width = decoded.shape[:2]
    assert 32 <= height < 300
    assert abs(width - 2 * height) <= 1
    left, right = decoded[:, 0, 2].mean(), decoded[:, -1, 2].mean()
    assert left + 100 < right


def test_rotation_that_exif_asks_for_is_ignored():
    jpeg = encode(draw(40, 80, noise=50), ".jpg")
    tag = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    tiff = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01" + tag + b"\x00" * 4
    exif = b"Exif\x00\x00" + tiff
    size = (len(exif) + 2).to_bytes(2, "big")
    turned = jpeg[:2] + b"\xff\xe1" + size + exif + jpeg[2:]
    upright = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert upright.shape == (80, 40, 3)  # OpenCV sees the tag
    shrunk = np.frombuffer(shrink_photo(turned, 10_000), np.uint8)
    assert cv2.imdecode(shrunk, cv2.IMREAD_COLOR).shape == (40, 80, 3)


def test_photo_that_cannot_be_small_enough_is_told():
    with pytest.raises(ValueError, match=r"600 x 300 pixels in .* bytes"):
        shrink_photo(encode(draw(300, 600, noise=50)), 300)


def test_tiny_photo_is_encoded_anew():
    assert len(shrink_photo(encode(draw(2, 3, noise=0), ".bmp"), 900)) <= 900


@pytest.mark.parametrize("content", [b"", b"no photo", b"\xff\xd8\xff"])
def test_what_is_no_photo_is_told(content):
    with pytest.raises(ValueError, match=f"Received: {len(content)} bytes"):
        shrink_photo(content, 100)


# === Tensors ===

STRINGS = np.array([[b"a\0", b""], [b"x" * 300, "ä".encode()]], object)


@pytest.mark.parametrize(
    "array",
    [
        STRINGS,
        np.array([1.5, -2.0], np.float32),
        np.array([[[1, -2]], [[3, 4]]], np.int32),
        np.array([2**40], np.int64),
        np.zeros((0, 3), np.float32),
        np.zeros((2, 0), np.int32),
    ],
)
def test_rows_are_read_from_both_forms(array):
    values = make_tensor_proto(array)
    content = tf.make_tensor_proto(array)
    assert read_rows(values) == read_rows(content) == array.tolist()


def test_packed_strings_are_read():
    proto = tf.make_tensor_proto(STRINGS)
    lengths = b"\x02\x00\xac\x02\x02"  # 300 takes two bytes
    proto.tensor_content = lengths + b"a\0" + b"x" * 300 + "ä".encode()
    del proto.string_val[:]
    assert read_rows(proto) == STRINGS.tolist()
    proto.tensor_content = lengths[:3]
    with pytest.raises(ValueError, match=r"0 values, shape \[2, 2\]"):
        read_rows(proto)


def test_what_is_sent_is_what_tensorflow_reads():
    strings = tf.make_ndarray(make_strings([b"a\0", b""]))
    assert strings.tolist() == [b"a\0", b""]
    ints = tf.make_ndarray(make_ints([3, 0]))
    assert (ints.dtype, ints.tolist()) == (np.int32, [3, 0])


@pytest.mark.parametrize(
    ("proto", "match"),
    [
        (tf.make_tensor_proto([True]), "Received: DT_BOOL"),
        (tf.make_tensor_proto(1.0), "Received: a scalar"),
    ],
)
def test_other_tensors_are_refused(proto, match):
    with pytest.raises(ValueError, match=match):
        read_rows(proto)
