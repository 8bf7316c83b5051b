import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from bmt_keras.data.image_headers import first_frame, read_orientation
from bmt_keras.data.images import (
    MAX_JPEG_PIXELS,
    MAX_PIXELS,
    TOO_LARGE,
    TRUNCATED,
    UNDECODABLE,
    UNKNOWN,
    PixelReader,
    decode_images,
    decode_rgb,
)

HEIGHT, WIDTH = 48, 64
AS_SEEN = PixelReader(HEIGHT, WIDTH)
LIKE_OPENCV = PixelReader(HEIGHT, WIDTH, like_opencv=True)


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


def exif(orientation, *, big=False, tags=(), offset=8, kind=3):
    """An EXIF block: tags, the last of which is the orientation."""
    order = ">" if big else "<"
    rows = b"".join(
        struct.pack(f"{order}HHI{'HH' if kind == 3 else 'I'}", *row)
        for row in (
            *((tag, 3, 1, 7, 7) for tag in tags),
            (0x0112, kind, 1, orientation, 0)[: 5 if kind == 3 else 4],
        )
    )
    head = b"MM\0*" if big else b"II*\0"
    head += struct.pack(f"{order}IH", offset, len(tags) + 1)
    return head + rows + b"\0" * 4


def insert(jpeg, *segments, place=2):
    """Puts segments, (marker, content), into a JPEG."""
    made = b"".join(
        b"\xff"
        + bytes([marker])
        + struct.pack(">H", len(content) + 2)
        + content
        for marker, content in segments
    )
    return jpeg[:place] + made + jpeg[place:]


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
    "png_one_bit": encode(GREY.convert("1"), "PNG"),
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
    "bmp_of_one_bit": encode(GREY.convert("1"), "BMP"),
    "tiff": encode(COLOUR, "TIFF"),
    # Its small image is whole.
    "jpeg_cut_with_preview": insert(
        IMAGES["jpeg"][:1500], (0xE1, b"Exif\0\0" + IMAGES["jpeg_grey"])
    ),
    "jpeg_spoilt": IMAGES["jpeg"].replace(b"\xff\xc4", b"\xff\xc5"),
}
FAULTS = {
    **dict.fromkeys(BROKEN, UNKNOWN),
    **dict.fromkeys(
        (
            name
            for name in BROKEN
            if name.startswith(("jpeg_cut", "png", "gif"))
        ),
        TRUNCATED,
    ),
    "webp_animated": "an animated WebP; one picture expected",
    "bmp_of_one_bit": "a BMP of 1 or 4 bits; 8 to 32 expected",
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
    pixels, error = LIKE_OPENCV.read(tf.constant(IMAGES[name]))
    assert (pixels.dtype, error) == (tf.uint8, b"")
    assert expected.std() > 20  # a picture, not a black field
    sides = first_frame(tf.constant(IMAGES[name]))[1]
    assert sides.numpy().tolist() == [67, 101]
    assert largest_difference(pixels, expected) <= 1


def test_every_size_of_a_jpeg_is_opencvs(tmp_path):
    jpeg, path = IMAGES["jpeg"], tmp_path / "image"
    for height, width in ((1, 1), (129, 128), (299, 299), (67, 101)):
        expected = read_with_opencv(jpeg, path, height=height, width=width)
        reader = PixelReader(height, width, like_opencv=True)
        pixels, _ = reader.read(tf.constant(jpeg))
        assert largest_difference(pixels, expected) <= 1
    # Of its own size it is so to the last bit.
    np.testing.assert_array_equal(pixels, expected)


def test_resizing_rounds_instead_of_cutting_off():
    pixels = tf.constant([[[[10] * 3, [13] * 3]]], tf.uint8)
    # The one new pixel lies halfway: 11.5, which rounds to 12.
    for like_opencv in (False, True):
        small = PixelReader(1, 1, like_opencv).resize(pixels)
        np.testing.assert_array_equal(small, [[[[12] * 3]]])
        same = PixelReader(1, 2, like_opencv).resize(pixels)
        np.testing.assert_array_equal(same, pixels)


# === As people see it ===


def read_with_pillow(encoded):
    """Pillow turns, lays on white and resizes without aliasing, too."""
    with Image.open(io.BytesIO(encoded)) as stored:
        upright = ImageOps.exif_transpose(stored).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    seen = Image.alpha_composite(white, upright).convert("RGB")
    return np.asarray(seen.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


SEEN = {
    # TensorFlow has no transparency of a BMP.
    **{k: v for k, v in IMAGES.items() if k != "bmp_alpha"},
    **{
        f"jpeg_turned_{n}": insert(
            IMAGES["jpeg"], (0xE1, b"Exif\0\0" + exif(n, big=n % 2 == 0))
        )
        for n in range(1, 9)
    },
    "png_turned": encode(COLOUR, "PNG", exif=ROTATED),
    "webp_turned": encode(COLOUR, "WEBP", exif=ROTATED),
    "webp_turned_alpha": encode(ALPHA, "WEBP", exif=ROTATED),
    "png_one_colour_transparent": encode(
        COLOUR, "PNG", transparency=COLOUR.getpixel((50, 30))
    ),
}


@pytest.mark.parametrize("name", SEEN)
def test_image_is_read_as_pillow_shows_it(name):
    pixels, _ = AS_SEEN.read(tf.constant(SEEN[name]))
    assert largest_difference(pixels, read_with_pillow(SEEN[name])) <= 2


def test_orientation_is_read_wherever_cameras_write_it():
    jpeg, block = IMAGES["jpeg"], b"Exif\0\0" + exif(6)
    place = 4 + int.from_bytes(jpeg[4:6], "big")  # behind APP0
    xmp = (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<x/>" * 900)
    camera = b"Exif\0\0" + exif(8, big=True, tags=(0x010F, 0x0110, 0x011A))
    cases = {
        "no EXIF": (jpeg, 1),
        "before APP0": (insert(jpeg, (0xE1, block)), 6),
        "behind APP0": (insert(jpeg, (0xE1, block), place=place), 6),
        "behind XMP": (insert(jpeg, xmp, (0xE1, block)), 6),
        "behind other tags": (insert(jpeg, (0xE1, camera)), 8),
        "PNG": (encode(COLOUR, "PNG", exif=ROTATED), 6),
        "nothing": (b"", 1),
    }
    broken = {
        "0": exif(0),
        "9": exif(9),
        "more than a byte": exif(0x0106),
        "more than a byte, big": exif(0x0106, big=True),
        "of another type": exif(6, kind=4),
        "tags beyond the end": exif(6, offset=2**31),
        "cut": exif(6)[:18],
        "no byte order": b"XX" + exif(6)[2:],
    }
    for name, content in broken.items():
        made = insert(jpeg, (0xE1, b"Exif\0\0" + content))
        cases[name] = made, 1
    for name, (image, expected) in cases.items():
        assert int(read_orientation(tf.constant(image))) == expected, name
        if name != "nothing":
            assert AS_SEEN.read(tf.constant(image))[0].numpy().any(), name


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_hidden_colours_are_not_seen(kind):
    colours = draw(4)
    colours[:40, :, 3] = 0
    others = colours.copy()
    others[:40, :, :3] = draw(3, seed=7)[:40]
    exact = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    images = [
        tf.constant(encode(Image.fromarray(each), kind, **exact))
        for each in (colours, others)
    ]
    seen = [AS_SEEN.read(image)[0].numpy() for image in images]
    np.testing.assert_array_equal(*seen)
    assert (seen[0][:20] == 255).all()
    hidden = [LIKE_OPENCV.read(image)[0].numpy() for image in images]
    assert largest_difference(*hidden) > 20


def test_large_image_is_averaged_and_not_sampled():
    noise = np.random.default_rng(0).integers(0, 256, (1600, 1200, 3), np.uint8)
    png = tf.constant(encode(Image.fromarray(noise), "PNG", compress_level=0))
    assert AS_SEEN.read(png)[0].numpy().std() < 8
    assert LIKE_OPENCV.read(png)[0].numpy().std() > 25


def test_jpeg_shrunk_in_decoding_looks_like_the_whole_one():
    large = Image.fromarray(draw(3, height=1200, width=1600))
    jpeg = tf.constant(encode(large, "JPEG", quality=90))
    whole = decode_rgb(jpeg, tf.constant(0), like_opencv=False)
    assert whole.shape == (1200, 1600, 3)
    for halvings in (1, 2, 3):
        small = decode_rgb(jpeg, tf.constant(halvings), like_opencv=False)
        assert small.shape == (1200 >> halvings, 1600 >> halvings, 3)
    assert largest_difference(AS_SEEN.resize(whole), AS_SEEN.read(jpeg)[0]) <= 2


# === A batch ===


@pytest.fixture(scope="module")
def read_batch():
    return tf.function(
        AS_SEEN.read_batch,
        input_signature=[tf.TensorSpec((None,), tf.string)],
    )


@pytest.mark.parametrize("name", BROKEN)
def test_broken_row_leaves_the_others_whole(read_batch, name):
    with pytest.raises(tf.errors.InvalidArgumentError):
        AS_SEEN.read(tf.constant(BROKEN[name]))
    good = [IMAGES["jpeg"], IMAGES["bmp_palette"], IMAGES["webp_alpha"]]
    expected, _ = read_batch(tf.constant(good))
    rows = [good[0], BROKEN[name], good[1], good[2]]
    pixels, errors = read_batch(tf.constant(rows))
    np.testing.assert_array_equal(pixels.numpy()[[0, 2, 3]], expected)
    assert not pixels.numpy()[1].any()
    message = f"{UNDECODABLE} ({FAULTS[name]}); received "
    message += f"{len(BROKEN[name])} bytes."
    assert errors.numpy().tolist() == [b"", message.encode(), b"", b""]


def test_rows_of_a_batch_are_those_of_single_images(read_batch):
    pixels, errors = read_batch(tf.constant(list(SEEN.values())))
    assert not any(errors.numpy())
    for (name, image), row in zip(SEEN.items(), pixels, strict=True):
        single, _ = AS_SEEN.read(tf.constant(image))
        np.testing.assert_array_equal(row, single, err_msg=name)
    pixels, errors = read_batch(tf.constant([], tf.string))
    assert (pixels.shape, pixels.dtype) == ((0, HEIGHT, WIDTH, 3), tf.uint8)
    assert (errors.shape, errors.dtype) == ((0,), tf.string)


def test_saved_model_reads_alike_in_a_session(read_batch, tmp_path):
    rows = [*SEEN.values(), BROKEN["jpeg_cut"], BROKEN["webp_animated"]]
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
    most = MAX_JPEG_PIXELS if name == "jpeg" else MAX_PIXELS
    message = (
        f"{TOO_LARGE}; received {width * height} pixels, expected at most "
    )
    message += f"{most}."
    assert errors.numpy().tolist() == [b"", message.encode(), b""]
    assert pixels.numpy()[[0, 2]].any(axis=(1, 2, 3)).all()
    assert not pixels.numpy()[1].any()


def test_image_at_the_limit_is_read(read_batch):
    largest = Image.new("L", (8192, MAX_PIXELS // 8192), 200)
    rows = [encode(largest, "PNG", compress_level=1)]
    pixels, errors = read_batch(tf.constant(rows))
    assert errors.numpy().tolist() == [b""]
    assert (pixels.numpy() == 200).all()


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_many_pixels_is_shrunk_in_decoding(progressive, read_batch):
    huge = Image.new("L", (12_000, 9_000), 200)
    jpeg = tf.constant([encode(huge, "JPEG", progressive=progressive)])
    pixels, errors = read_batch(jpeg)
    assert errors.numpy().tolist() == [b""]
    assert (pixels.numpy() == 200).all()
    _, errors = LIKE_OPENCV.read_batch(jpeg)
    assert errors.numpy()[0].startswith(TOO_LARGE.encode())


def test_gif_is_cut_behind_its_first_frame():
    frames = {"save_all": True, "append_images": [OTHER.quantize(16)]}
    # The comment looks like blocks, in two parts.
    animated = encode(PALETTE, "GIF", **frames, comment=b"!," * 300)
    frame, sides = first_frame(tf.constant(animated))
    assert sides.numpy().tolist() == [67, 101]
    assert frame.numpy()[:-1] == animated[: len(frame.numpy()) - 1]
    with Image.open(io.BytesIO(frame.numpy())) as cut:
        assert cut.n_frames == 1
    np.testing.assert_array_equal(
        AS_SEEN.read(frame)[0], AS_SEEN.read(tf.constant(IMAGES["gif"]))[0]
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
    batches = list(decode_images(paths, PixelReader(4, 6), batch_size=2))
    assert [len(pixels) for pixels, _ in batches] == [2, 2, 1]
    pixels = np.concatenate([pixels for pixels, _ in batches])
    assert (pixels.shape, pixels.dtype) == ((5, 4, 6, 3), np.uint8)
    expected = np.zeros((5, 4, 6, 3))
    expected[..., 0] = np.reshape([30, 10, 20, 50, 40], (5, 1, 1))
    np.testing.assert_array_equal(pixels, expected)
    assert not any(error for _, errors in batches for error in errors)
    assert list(decode_images([], PixelReader(4, 6))) == []


@pytest.mark.parametrize("reader", [AS_SEEN, LIKE_OPENCV])
def test_files_are_read_as_their_bytes(reader, tmp_path):
    for number, image in enumerate(SEEN.values()):
        (tmp_path / str(number)).write_bytes(image)
    paths = [tmp_path / str(number) for number in range(len(SEEN))]
    pixels, _ = reader.read_batch(tf.constant(list(SEEN.values())))
    found = [batch for batch, _ in decode_images(paths, reader, batch_size=9)]
    np.testing.assert_array_equal(np.concatenate(found), pixels)


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
    ((pixels, errors),) = decode_images(paths, PixelReader(4, 6))
    assert errors[0] == errors[6] == ""
    assert errors[1].startswith("not a decodable image")
    for error, reason in zip(errors[2:6], found.values(), strict=True):
        assert error.startswith(f"expected an image, found: {reason}")
    assert pixels[:, 0, 0, 0].tolist() == [10, 0, 0, 0, 0, 0, 70]
