"""Pictures of every kind in one request to an export, good ones and bad."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from bmt_keras import contract


def encode(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def huge_png(png):
    """A few hundred bytes that claim 2**40 pixels."""
    head = png[:16] + (2**20).to_bytes(4, "big") * 2 + png[24:29]
    return head + zlib.crc32(head[12:]).to_bytes(4, "big") + png[33:]


SQUARES = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
PALETTE = (
    Image.fromarray(SQUARES).resize((40, 30), Image.Resampling.NEAREST)
).quantize(16)
COLOUR, GREY = PALETTE.convert("RGB"), PALETTE.convert("L")
OPAQUE = COLOUR.convert("RGBA")
OTHER = Image.new("P", (40, 30))
TURNED = Image.Exif()
TURNED[0x0112] = 8  # a quarter turn
PNG = encode(COLOUR, "PNG")
# Lossless ways to write the same pixels.
SAME = {
    "png_palette": encode(PALETTE, "PNG"),
    "png_alpha": encode(OPAQUE, "PNG"),
    "gif": encode(PALETTE, "GIF"),
    "gif_animated": encode(
        PALETTE, "GIF", save_all=True, append_images=[OTHER]
    ),
    "bmp": encode(COLOUR, "BMP"),
    "bmp_palette": encode(PALETTE, "BMP"),
    "webp": encode(COLOUR, "WEBP", lossless=True),
    "webp_alpha": encode(OPAQUE, "WEBP", lossless=True, exact=True),
}
OTHERS = {
    "jpeg": encode(COLOUR, "JPEG"),
    "jpeg_grey": encode(GREY, "JPEG"),
    "jpeg_cmyk": encode(COLOUR.convert("CMYK"), "JPEG"),
    "jpeg_turned": encode(COLOUR, "JPEG", exif=TURNED),
    "png_grey": encode(GREY, "PNG"),
    "png_transparent": encode(PALETTE, "PNG", transparency=3),
    "webp_lossy": encode(COLOUR, "WEBP"),
}
UNREADABLE = {
    "nothing": b"",
    "text": b"no photo",
    "webp_animated": encode(
        COLOUR, "WEBP", save_all=True, append_images=[OTHER.convert("RGB")]
    ),
    **{
        f"{name}_cut": photo[: len(photo) // 2]
        for name, photo in (SAME | OTHERS).items()
        if not name.startswith("gif_")
    },
}
UNREADABLE["png_cut"] = PNG[: len(PNG) // 2]


@pytest.fixture(scope="module")
def answers(session):
    """Rows of `embed_image` and `serving_default` by name, of one request."""
    named = {"png": PNG, "huge": huge_png(PNG), **SAME, **OTHERS, **UNREADABLE}
    # Good and bad ones side by side.
    order = sorted(named, key=lambda name: zlib.crc32(name.encode()))
    photos = [named[name] for name in order]
    embedded = session.run(contract.EMBED_IMAGE, image_bytes=photos)
    captions = session.run(contract.SERVING_DEFAULT, image_bytes=photos)
    outputs = {**captions, **embedded}
    assert (captions[contract.ERROR] == embedded[contract.ERROR]).all()
    return {
        name: {key: value[row] for key, value in outputs.items()}
        for row, name in enumerate(order)
    }


@pytest.mark.parametrize("name", SAME)
def test_same_pixels_give_the_same_embedding_and_caption(answers, name):
    found, expected = answers[name], answers["png"]
    assert found[contract.ERROR] == b""
    np.testing.assert_allclose(
        found[contract.IMAGE_EMBEDDING],
        expected[contract.IMAGE_EMBEDDING],
        atol=1e-5,
    )
    assert found[contract.CAPTION] == expected[contract.CAPTION] != b""


@pytest.mark.parametrize("name", OTHERS)
def test_other_pictures_are_captioned_as_by_the_library(
    answers, captioner, name
):
    found = answers[name]
    (expected,) = captioner.caption([OTHERS[name]])
    assert found[contract.ERROR] == b""
    assert found[contract.CAPTION].decode() == expected.text
    assert found[contract.SCORE] == pytest.approx(expected.score, abs=1e-4)


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_picture_has_its_own_error(answers, name):
    error = answers[name][contract.ERROR].decode()
    assert error.startswith("not a decodable image")
    assert error.endswith(f"received {len(UNREADABLE[name])} bytes.")
    blank = {k: v for k, v in answers[name].items() if k != contract.ERROR}
    assert not any(np.array(value, object).any() for value in blank.values())


def test_picture_of_absurd_size_has_its_own_error(answers):
    error = answers["huge"][contract.ERROR].decode()
    assert error.startswith(f"too large an image; received {2**40} pixels")
    assert answers["huge"][contract.CAPTION] == b""
