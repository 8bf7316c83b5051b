import io
import os
import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bmt_keras.data.image_headers import first_frame
from bmt_keras.data.images import (
    MAX_PIXELS,
    TOO_LARGE,
    UNDECODABLE,
    decode_images,
    decode_rgb,
    read_pixels,
    read_pixels_or_error,
    resize_pixels,
)

HEIGHT, WIDTH = 48, 64


def draw(channels, *, seed=0, height=67, width=101):
    """Smooth colours with a little noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (5, 7, channels)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    smooth = smooth.reshape(height, width, channels)
    noisy = smooth + rng.normal(0, 6, smooth.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def encode(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # a quarter turn
COLOUR = Image.fromarray(draw(3))
OTHER = Image.fromarray(draw(3, seed=1))
GREY = COLOUR.convert("L")
ALPHA = Image.fromarray(draw(4))
PALETTE = COLOUR.quantize(16)

IMAGES = {
    "jpeg": encode(COLOUR, "JPEG", quality=90),
    "jpeg_full_chroma": encode(COLOUR, "JPEG", subsampling=0),
    "jpeg_coarse": encode(COLOUR, "JPEG", quality=30, subsampling=2),
    "jpeg_progressive": encode(COLOUR, "JPEG", progressive=True),
    "jpeg_grey": encode(GREY, "JPEG"),
    "jpeg_cmyk": encode(COLOUR.convert("CMYK"), "JPEG"),
    "jpeg_exif_rotation": encode(COLOUR, "JPEG", exif=ROTATED),
    "png": encode(COLOUR, "PNG"),
    "png_grey": encode(GREY, "PNG"),
    "png_grey_alpha": encode(ALPHA.convert("LA"), "PNG"),
    "png_palette": encode(PALETTE, "PNG"),
    "png_palette_transparent": encode(PALETTE, "PNG", transparency=3),
    "png_alpha": encode(ALPHA, "PNG"),
    "gif": encode(PALETTE, "GIF"),
    "gif_animated": encode(
        PALETTE, "GIF", save_all=True, append_images=[OTHER.quantize(16)]
    ),
    "bmp": encode(COLOUR, "BMP"),
    "bmp_grey": encode(GREY, "BMP"),
    "bmp_palette": encode(PALETTE, "BMP"),
    "bmp_small_palette": encode(COLOUR.quantize(7), "BMP"),
    "bmp_alpha": encode(ALPHA, "BMP"),
    "webp": encode(COLOUR, "WEBP"),
    "webp_lossless": encode(COLOUR, "WEBP", lossless=True),
    "webp_alpha": encode(ALPHA, "WEBP"),
    "webp_lossless_alpha": encode(ALPHA, "WEBP", lossless=True),
}
BROKEN = {
    "nothing": b"",
    "text": b"no image",
    "jpeg_cut": IMAGES["jpeg"][:1500],
    "jpeg_cut_in_head": IMAGES["jpeg"][:200],
    "png_cut": IMAGES["png"][:1500],
    "gif_cut": IMAGES["gif"][:1500],
    "bmp_cut": IMAGES["bmp"][:1500],
    "bmp_cut_in_palette": IMAGES["bmp_palette"][:60],
    "bmp_wild_offset": IMAGES["bmp_palette"][:10] + b"\xff" * 100,
    "webp_cut": IMAGES["webp"][:300],
    "webp_cut_lossless": IMAGES["webp_lossless"][:300],
    "webp_cut_alpha": IMAGES["webp_alpha"][:300],
    "webp_animated": encode(
        COLOUR, "WEBP", save_all=True, append_images=[OTHER], lossless=True
    ),
    "tiff": encode(COLOUR, "TIFF"),
}


def read_with_opencv(encoded, path, *, height=HEIGHT, width=WIDTH):
    path.write_bytes(encoded)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.cvtColor(cv2.imread(str(path), flags), cv2.COLOR_BGR2RGB)
    return cv2.resize(pixels, (width, height))


def largest_difference(found, expected):
    return np.abs(np.asarray(found, int) - np.asarray(expected, int)).max()


# === One image ===


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_opencvs_within_one_level(name, tmp_path):
    expected = read_with_opencv(IMAGES[name], tmp_path / "image")
    pixels = read_pixels(tf.constant(IMAGES[name]), HEIGHT, WIDTH)
    assert pixels.dtype == tf.uint8
    assert expected.std() > 20  # a picture, not a black field
    assert int(first_frame(tf.constant(IMAGES[name]))[1]) == 67 * 101
    assert largest_difference(pixels, expected) <= 1


def test_every_size_of_a_jpeg_is_opencvs(tmp_path):
    jpeg, path = IMAGES["jpeg"], tmp_path / "image"
    for height, width in ((1, 1), (129, 128), (299, 299), (67, 101)):
        expected = read_with_opencv(jpeg, path, height=height, width=width)
        pixels = read_pixels(tf.constant(jpeg), height, width)
        assert largest_difference(pixels, expected) <= 1
    # Of its own size it is so to the last bit.
    np.testing.assert_array_equal(decode_rgb(jpeg), expected)


def test_resizing_rounds_instead_of_cutting_off():
    pixels = tf.constant([[[[10] * 3, [13] * 3]]], tf.uint8)
    # The one new pixel lies halfway: 11.5, which rounds to 12.
    np.testing.assert_array_equal(resize_pixels(pixels, 1, 1), [[[[12] * 3]]])
    np.testing.assert_array_equal(resize_pixels(pixels, 1, 2), pixels)


# === A batch ===


@pytest.fixture(scope="module")
def read_batch():
    return tf.function(
        lambda image_bytes: read_pixels_or_error(image_bytes, HEIGHT, WIDTH),
        input_signature=[tf.TensorSpec((None,), tf.string)],
    )


@pytest.mark.parametrize("name", BROKEN)
def test_broken_row_leaves_the_others_whole(read_batch, name):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_rgb(BROKEN[name])
    good = [IMAGES["jpeg"], IMAGES["bmp_palette"], IMAGES["webp_alpha"]]
    expected, _ = read_batch(tf.constant(good))
    rows = [good[0], BROKEN[name], good[1], good[2]]
    pixels, errors = read_batch(tf.constant(rows))
    np.testing.assert_array_equal(pixels.numpy()[[0, 2, 3]], expected)
    assert not pixels.numpy()[1].any()
    message = f"{UNDECODABLE}; received {len(BROKEN[name])} bytes."
    assert errors.numpy().tolist() == [b"", message.encode(), b"", b""]


def test_rows_of_a_batch_are_those_of_single_images(read_batch):
    pixels, errors = read_batch(tf.constant(list(IMAGES.values())))
    assert not any(errors.numpy())
    for (name, image), row in zip(IMAGES.items(), pixels, strict=True):
        single = read_pixels(tf.constant(image), HEIGHT, WIDTH)
        np.testing.assert_array_equal(row, single, err_msg=name)
    pixels, errors = read_batch(tf.constant([], tf.string))
    assert (pixels.shape, pixels.dtype) == ((0, HEIGHT, WIDTH, 3), tf.uint8)
    assert (errors.shape, errors.dtype) == ((0,), tf.string)


def test_saved_model_reads_alike_in_a_session(read_batch, tmp_path):
    rows = [IMAGES["jpeg"], BROKEN["jpeg_cut"], IMAGES["webp_alpha"]]
    rows.append(IMAGES["bmp_palette"])
    expected, messages = read_batch(tf.constant(rows))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "bytes")])
    def read(image_bytes):
        pixels, errors = read_batch(image_bytes)
        return {"pixels": pixels, "error": errors}

    folder = os.fspath(tmp_path / "model")
    tf.saved_model.save(tf.Module(), folder, signatures={"read": read})

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], folder)
        signature = loaded.signature_def["read"]
        fetches = {k: v.name for k, v in signature.outputs.items()}
        (feed,) = (each.name for each in signature.inputs.values())
        found = session.run(fetches, {feed: rows})
        nothing = session.run(fetches, {feed: []})
    np.testing.assert_array_equal(found["pixels"], expected)
    assert found["error"].tolist() == messages.numpy().tolist()
    assert nothing["pixels"].shape == (0, HEIGHT, WIDTH, 3)


# === Large images ===


def claim(name, size):
    """An image whose head claims other sides than its pixels have."""
    width, height = size
    image = bytearray(IMAGES[name])
    little, big = width.to_bytes(4, "little"), width.to_bytes(4, "big")
    if name.startswith("jpeg"):
        place = image.index(b"\xff\xc0") + 5
        image[place : place + 4] = height.to_bytes(2, "big") + big[2:]
    elif name.startswith("png"):
        image[16:24] = big + height.to_bytes(4, "big")
        image[29:33] = zlib.crc32(image[12:29]).to_bytes(4, "big")
    elif name.startswith("gif"):
        place = image.index(b"\x2c\0\0\0\0") + 5
        image[place : place + 4] = little[:2] + height.to_bytes(2, "little")
    elif name.startswith("bmp"):
        image[18:26] = little + (-height).to_bytes(4, "little", signed=True)
    elif image[12:16] == b"VP8 ":
        image[26:30] = little[:2] + height.to_bytes(2, "little")
    elif image[12:16] == b"VP8L":
        sides = (width - 1) | (height - 1) << 14
        image[21:25] = sides.to_bytes(4, "little")
    else:
        image[24:27] = (width - 1).to_bytes(3, "little")
        image[27:30] = (height - 1).to_bytes(3, "little")
    return bytes(image)


CLAIMED = {
    "jpeg": (65_000, 64_000),
    "png": (2**20, 2**19),
    "png_grey_alpha": (8193, 8192),
    "gif": (65_535, 65_535),
    "bmp": (2**30, 2**20),
    "webp": (16_383, 16_382),
    "webp_lossless": (16_384, 16_383),
    "webp_alpha": (2**24, 2**23),
}


@pytest.mark.parametrize("name", CLAIMED)
def test_large_image_is_refused_by_its_head(read_batch, name):
    width, height = CLAIMED[name]
    rows = [IMAGES["jpeg"], claim(name, CLAIMED[name]), IMAGES["gif"]]
    pixels, errors = read_batch(tf.constant(rows))
    message = (
        f"{TOO_LARGE}; received {width * height} pixels, expected at most "
        f"{MAX_PIXELS}."
    )
    assert errors.numpy().tolist() == [b"", message.encode(), b""]
    assert pixels.numpy()[[0, 2]].any(axis=(1, 2, 3)).all()
    assert not pixels.numpy()[1].any()


def test_image_at_the_limit_is_read(read_batch):
    largest = Image.new("L", (8192, MAX_PIXELS // 8192), 200)
    rows = [encode(largest, "PNG", compress_level=1)]
    pixels, errors = read_batch(tf.constant(rows))
    assert errors.numpy().tolist() == [b""]
    assert (pixels.numpy() == 200).all()


def test_gif_is_cut_behind_its_first_frame():
    frames = {"save_all": True, "append_images": [OTHER.quantize(16)]}
    # The comment looks like blocks, in two parts.
    animated = encode(PALETTE, "GIF", **frames, comment=b"!," * 300)
    frame, count = first_frame(tf.constant(animated))
    assert int(count) == 67 * 101
    assert frame.numpy()[:-1] == animated[: len(frame.numpy()) - 1]
    with Image.open(io.BytesIO(frame.numpy())) as cut:
        assert cut.n_frames == 1
    np.testing.assert_array_equal(
        decode_rgb(frame), decode_rgb(encode(PALETTE, "GIF"))
    )


def test_later_frames_of_a_gif_are_not_decoded(read_batch):
    animated = IMAGES["gif_animated"]
    place = animated.rindex(b"\x2c\0\0\0\0") + 5
    claimed = animated[:place] + b"\xff" * 4 + animated[place + 4 :]
    pixels, errors = read_batch(tf.constant([claimed, IMAGES["gif"]]))
    assert errors.numpy().tolist() == [b"", b""]
    np.testing.assert_array_equal(pixels[0], pixels[1])


def test_head_of_a_gif_alone_is_broken(read_batch):
    heads = [IMAGES["gif"][:length] for length in (0, 3, 6, 12, 20, 90)]
    for error in read_batch(tf.constant(heads))[1].numpy():
        assert error.startswith(UNDECODABLE.encode())


# === Files ===


def test_batches_keep_the_images_order(make_images):
    paths = [image.path for image in make_images([3, 1, 2, 5, 4])]
    batches = list(decode_images(paths, height=4, width=6, batch_size=2))
    assert [len(pixels) for pixels, _ in batches] == [2, 2, 1]
    pixels = np.concatenate([pixels for pixels, _ in batches])
    assert (pixels.shape, pixels.dtype) == ((5, 4, 6, 3), np.uint8)
    expected = np.zeros((5, 4, 6, 3))
    expected[..., 0] = np.reshape([30, 10, 20, 50, 40], (5, 1, 1))
    np.testing.assert_array_equal(pixels, expected)
    assert not any(error for _, errors in batches for error in errors)
    assert list(decode_images([], height=4, width=6)) == []


def test_bad_images_are_told_apart(make_images, tmp_path):
    one, two, seven = make_images([1, 2, 7], broken=[2])
    (tmp_path / "folder.png").mkdir()
    found = {
        "gone.png": "No such file",
        "folder.png": "Is a directory",
        "no\0name.png": "embedded null byte",
        "no\ud800name.png": "'utf-8' codec can't encode",
    }
    bad = [two.path, *(tmp_path / name for name in found)]
    paths = [one.path, *bad, seven.path]
    ((pixels, errors),) = decode_images(paths, height=4, width=6)
    assert errors[0] == errors[6] == ""
    assert errors[1].startswith("not a decodable image")
    for error, reason in zip(errors[2:6], found.values(), strict=True):
        assert error.startswith(f"expected an image, found: {reason}")
    assert pixels[:, 0, 0, 0].tolist() == [10, 0, 0, 0, 0, 0, 70]
