"""Image files: found in folders, and read whatever their format."""

import base64
import io
import json
import logging
import os
import re
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from bmt_keras import image_files
from bmt_keras.data.images import MAX_PIXELS
from bmt_keras.errors import InputError
from bmt_keras.image_files import find_images, read_image, report_unreadable

# 48 x 32: the left half red, the right half blue.
HEIC = zlib.decompress(
    base64.b64decode(
        "eNpjYGCQSSupLMhIzUxmAILczDRDEDs3MzGNgYGxNje1JJEBAhQzUnKKoGyGgszkEgY0oJSZ"
        "kw82xMWBgREIgYBxIYQGAhMgVs7MzEsD80CiokBOKhOUl1GWbAhi8hVkluTClfzNLCgqANJ3"
        "MwuS84F0GVCZMyMzSGgCWJHcB4Y/f3/8YGDgZ04A6pBwYORh/P8fpIAZpIIZhOR2MTkkAiW1"
        "nBgZ0WQWKDSyTnv1ZNnOHRwZBgpAIWYQwaCYBFTO5sJ4sPhAJ9AS4eT8nKK85JwKoCgvA1sD"
        "UEgks7ggFeozByjWSM5JBLnMAOp4BRD9////D0CaCUg/ANFALFCQWZEJ0sjMwcEBpCQyC3Jh"
        "gQwMN9ZGJmbWFiDbJjclERTIBhqM6zkfPG6eE/L/5zzz/3V+p2/FeoZw/N9+0fp04//7k2aL"
        "5l8u2+/v7uf5Six0j5MrPwCtiGWX"
    )
)

PIXELS = np.zeros((32, 48, 3), np.uint8)
PIXELS[:, :24] = 200, 30, 30
PIXELS[:, 24:] = 30, 30, 200
PICTURE = Image.fromarray(PIXELS)


def encode(kind, picture=PICTURE, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


# === Finding ===


@pytest.fixture
def folder(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "photos"
    for name, content in {
        "2.jpg": b"",
        "10.JPEG": b"",
        "below/a.PNG": b"",
        "below/deep/b.heic": b"",
        "c.jfif": b"",
        "d.jpe": b"",
        "no_ending": encode("JPEG"),
        "2024.05.17": encode("TIFF"),
        "text": b"no photo",
        "notes.txt": b"",
        ".hidden.jpg": b"",
        ".thumbnails/x.jpg": b"",
        "__MACOSX/._2.jpg": b"",
        "below/checkpoints/y.png": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


FOUND = [
    *("10.JPEG", "2.jpg", "2024.05.17", "below/a.PNG", "below/deep/b.heic"),
    *("c.jfif", "d.jpe", "no_ending"),
]
LEFT_OUT = {"2 of other kinds", "2 hidden", "1 __MACOSX", "1 checkpoints"}


def names(found, folder):
    return [path.relative_to(folder).as_posix() for path in found]


def read_counts(caplog, folder):
    (line,) = caplog.messages
    head = f"{folder}: left out "
    assert line.startswith(head)
    assert line.endswith(".")
    return set(line[len(head) : -1].split(", "))


def test_folder_gives_its_images_and_says_what_is_left_out(folder, caplog):
    found = find_images([folder, "other.jpg"])
    assert names(found[:-1], folder) == FOUND
    assert str(found[-1]) == "other.jpg"
    assert read_counts(caplog, folder) == LEFT_OUT


def test_links_are_followed_without_loops(folder, tmp_path, caplog):
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "e.webp").touch()
    for link, target in {
        "a_link": "others",
        "below/up": "photos",  # to its own parent
        "below/twice": "others",
        "again": "photos/below/deep",
    }.items():
        (folder / link).symlink_to(tmp_path / target, target_is_directory=True)
    (folder / "f.png").symlink_to(tmp_path / "others" / "e.webp")
    (folder / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(folder / "pipe")
    found = names(find_images([folder]), folder)
    # Photos reached on two ways are given once.
    assert sorted({*found} - {"a_link/e.webp", "below/twice/e.webp"}) == sorted(
        [*FOUND, "f.png"]
    )
    assert len(found) == len(FOUND) + 2
    counts = read_counts(caplog, folder)
    assert counts == LEFT_OUT - {"2 of other kinds"} | {
        "4 of other kinds",
        "3 links to folders already searched",
    }


def test_folder_that_cannot_be_read_is_named(folder, monkeypatch, caplog):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = names(find_images([folder]), folder)
    assert found == [name for name in FOUND if "deep" not in name]
    (reason,) = read_counts(caplog, folder) - LEFT_OUT
    assert reason.startswith("1 unreadable folder (")
    assert f"{folder / 'below' / 'deep'}" in reason


def test_name_that_is_no_utf8_is_found_and_read(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(path, "wb") as file:
        file.write(encode("PNG"))
    (found,) = find_images([tmp_path])
    assert found.name == "caf\udce9.png"
    assert read_image(found) == (encode("PNG"), "")


def test_folder_without_images_is_named(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"expected images .*, found none"):
        find_images([tmp_path])


# === Formats ===


def decode(image):
    content, fault = read_image(image)
    assert fault == ""
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_formats_of_the_graph_are_left_as_they_are(kind, monkeypatch):
    content = encode(kind)
    monkeypatch.setitem(sys.modules, "PIL", None)  # to import it fails
    assert read_image(content) == (content, "")
    # Whether it is an image, the graph says.
    assert read_image(b"no image") == (b"no image", "")


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "TGA", "QOI", "JPEG2000"])
def test_other_formats_become_a_png_of_the_same_pixels(kind):
    content, fault = read_image(encode(kind))
    assert (content[:4], fault) == (b"\x89PNG", "")
    np.testing.assert_array_equal(decode(encode(kind)), PIXELS)


@pytest.mark.parametrize("content", [HEIC, encode("AVIF", quality=90)])
def test_photos_of_telephones_are_read(content):
    found = decode(content)
    assert found.shape == PIXELS.shape
    assert abs(found.astype(int) - PIXELS)[:, 4:20].max() <= 12
    assert abs(found.astype(int) - PIXELS)[:, 28:44].max() <= 12


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_converted_images_stand_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    found = decode(encode(kind, exif=exif)).astype(int)
    assert found.shape == (48, 32, 3)  # red above blue
    assert abs(found - PIXELS.transpose(1, 0, 2))[4:20].max() <= 12


def test_alpha_stays_for_the_graph_to_compose():
    alpha = PICTURE.copy()
    alpha.putalpha(70)
    for kind in ("TIFF", "AVIF"):
        assert (decode(encode(kind, alpha))[..., 3] == 70).all()
    np.testing.assert_array_equal(decode(encode("TIFF", alpha)), alpha)
    palette = PICTURE.quantize(4)
    palette.info["transparency"] = 0
    assert decode(palette).shape == (32, 48, 4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA"])
def test_modes_of_pillow_are_what_a_viewer_shows(mode):
    picture = PICTURE.convert(mode)
    expected = picture.convert("RGBA" if mode == "LA" else "RGB")
    found = Image.fromarray(decode(encode("TIFF", picture)))
    np.testing.assert_array_equal(found.convert(expected.mode), expected)


def test_sixteen_bits_stay_and_thirty_two_are_refused():
    deep = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    assert (decode(encode("TIFF", Image.fromarray(deep))) == deep).all()
    for dtype in (np.float32, np.int32):
        picture = Image.fromarray(np.zeros((3, 4), dtype))
        _, fault = read_image(encode("TIFF", picture))
        assert "found: 32 bits for each colour" in fault


def test_first_page_counts():
    other = Image.new("RGB", (9, 9))
    content = encode("TIFF", save_all=True, append_images=[other])
    np.testing.assert_array_equal(decode(content), PIXELS)


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        *((content, "PIL") for content in (HEIC, encode("TIFF"))),
        *((encode("AVIF"), "PIL"), (HEIC, "pi_heif")),
        (HEIC[:40], ""),  # damaged, which cannot be told apart
    ],
)
def test_error_names_the_extra(content, missing, monkeypatch):
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    if missing == "pi_heif":
        Image.init()
        monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    found, fault = read_image(content)
    assert found == b""
    assert fault.startswith("expected an image, found: HEIC, AVIF or TIFF")
    assert "pip install 'bmt-keras[images]'" in fault


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_damaged_and_too_large_images_are_told(monkeypatch):
    _, fault = read_image(encode("TIFF")[:-2000])
    assert "found: image file is truncated" in fault
    assert image_files._MAX_PIXELS == MAX_PIXELS
    monkeypatch.setattr(image_files, "_MAX_PIXELS", 48 * 32 - 1)
    _, fault = read_image(encode("TIFF"))
    assert fault == "expected an image, found: more than 1535 pixels"


def test_postscript_is_not_run(monkeypatch):
    monkeypatch.setattr(
        "PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("run")
    )
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    assert read_image(script) == (script, "")


# === Kinds ===


def test_kinds_of_images_give_the_same_bytes(tmp_path):
    png = encode("PNG")
    path = tmp_path / "a.png"
    path.write_bytes(png)
    for image in (path, str(path), png, bytearray(png), memoryview(png)):
        assert read_image(image) == (png, "")
    with path.open("rb") as file:
        assert read_image(file) == (png, "")
    np.testing.assert_array_equal(decode(PICTURE), PIXELS)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("gone.png", "No such file or directory"),
        ("no\0name.png", "embedded null byte"),
        (io.StringIO("text"), "memoryview: .* not 'str'"),
        (["a.jpg"], "memoryview: .* not 'list'"),
        (None, "memoryview: .* not 'NoneType'"),
        ("http://127.0.0.1:1/a.jpg", ".*refused"),
        ("http://[a", "Invalid IPv6 URL"),
    ],
)
def test_what_is_no_image_is_told(image, found):
    content, fault = read_image(image)
    assert content == b""
    assert re.match(f"expected an image, found: {found}", fault)


@pytest.fixture
def address():
    """A server with an image, an endless answer and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in ("/a.png", "/endless"):
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            if self.path == "/a.png":
                self.wfile.write(encode("PNG"))
                return
            try:
                while True:
                    self.wfile.write(b"x" * 10_000)
            except OSError:
                pass  # the reader has enough

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses_are_read_within_bounds(address, monkeypatch):
    assert read_image(f"{address}/a.png") == (encode("PNG"), "")
    _, fault = read_image(f"{address}/gone.png")
    assert fault == "expected an image, found: HTTP Error 404: Not Found"
    monkeypatch.setattr(image_files, "_BYTES", 50_000)
    _, fault = read_image(f"{address}/endless")
    assert fault == "expected an image, found: more than 50000 bytes or 30 s"
    monkeypatch.setattr(image_files, "_BYTES", 2**40)
    monkeypatch.setattr(image_files, "_SECONDS", 0.5)
    _, fault = read_image(f"{address}/endless")
    assert fault.endswith("bytes or 0.5 s")


# === Bad images ===


def test_bad_images_are_named_and_many_are_listed(tmp_path, caplog):
    bad = [f"images/caf\udce9 {n}.jpg (gone)" for n in range(7)]
    for skip_bad in (False, True):
        report_unreadable([], 7, skip_bad=skip_bad, beside=tmp_path / "out")
    assert not caplog.records
    rule = "7 of 90 photos cannot be read: " + "; ".join(bad)
    with pytest.raises(InputError) as error:
        report_unreadable(bad, 90, skip_bad=False)
    assert str(error.value).startswith(f"{rule}. Mend them, or ")
    report_unreadable(bad[:5], 90, skip_bad=True, beside=tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []

    report_unreadable(bad, 90, skip_bad=True, beside=tmp_path / "out.csv")
    path = tmp_path / "out-bad-images.txt"
    assert f"{bad[4]}; … (all in {path}). They are left" in caplog.messages[1]
    lines = path.read_text(encoding="utf-8").splitlines()
    # As JSON writes bytes that are no UTF-8.
    assert [json.loads(f'"{line}"') for line in lines] == bad
