"""Image files: found in folders, and read whatever their format.

The graph decodes JPEG, PNG, GIF, BMP and WebP. What else Pillow reads becomes
a PNG before. Pillow is an extra, which is imported when it is first needed.
"""

import io
import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bmt_keras.atomic import write_atomically
from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)

_MAX_PIXELS = 2**26  # as many as the graph decodes

IMAGE_SUFFIX = re.compile(
    r"(?i)\.(a?png|avif|bmp|gif|hei[cf]|hif|j2k|jfif|jp2|jpe?g?|mpo|p[bgnp]m|"
    r"pcx|psd|qoi|tga|tiff?|webp)"
)
# How files begin: of the graph's formats, and of those that need the extra.
_DECODED = re.compile(rb"(?s)\xff\xd8\xff|\x89PNG\r|GIF8|BM|RIFF.{4}WEBP")
_OTHERS = re.compile(rb"(?s)II\*\0|MM\0\*|.{4}ftyp(avi|he|m[is]f)|\0{3}\x0cjP ")
_PASSED_OVER = ("__MACOSX", "checkpoints")  # folders of archives and of runs
# What would break a line of a table, or is no UTF-8.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SECONDS, _BYTES = 30, 2**26  # of a download, at most
_NAMED = 5  # unreadable images named in a message where a file names all


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Lists image files, those of folders and their subfolders by their names.

    An image is known by its ending, or by its content where it has none. Links
    are followed, no folder is searched twice. Hidden names, `__MACOSX` and
    `checkpoints` are passed over. A line of the log counts what is left out.

    Raises:
        InputError: A folder holds no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        # A file that is missing is told when it is read.
        found += _search(path) if path.is_dir() else [path]
    return found


def show_name(path: str | Path) -> str:
    """The path on one line: as JSON, which reads back, if it would break it."""
    name = str(path)
    is_plain = not (_UNPRINTABLE.search(name) or name.startswith('"'))
    return name if is_plain else json.dumps(name)


def _search(folder: Path) -> list[Path]:
    found: list[Path] = []
    left_out: Counter[str] = Counter()
    folders, searched = [str(folder)], set[str]()
    while folders:
        top = folders.pop()
        if (real := os.path.realpath(top)) in searched:
            left_out["links to folders already searched"] += 1
            continue
        searched.add(real)
        try:
            entries = list(os.scandir(top))
        except OSError as error:
            left_out[f"unreadable folder ({error})"] += 1
            continue
        for name, path in ((entry.name, entry.path) for entry in entries):
            if name.startswith(".") or name in _PASSED_OVER:
                left_out[name if name in _PASSED_OVER else "hidden"] += 1
            elif os.path.isdir(path):
                # Links last: photos have the names that they have without.
                place = 0 if os.path.islink(path) else len(folders)
                folders.insert(place, path)
            elif _is_image(Path(path)):
                found.append(Path(path))
            else:
                left_out["of other kinds"] += 1
    if not found:
        raise InputError(f"{folder}: expected images (JPEG, …), found none.")
    if left_out:
        counts = ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        _LOGGER.info("%s: left out %s.", folder, counts)
    return sorted(found)


def _is_image(path: Path) -> bool:
    if not path.is_file():  # to open a pipe would wait for its other end
        return False
    # "2024.05.17" has no ending, either.
    if path.suffix and not path.suffix[1:].isdecimal():
        return bool(IMAGE_SUFFIX.fullmatch(path.suffix))
    with suppress(OSError), path.open("rb") as file:
        head = file.read(32)
        return bool(_DECODED.match(head) or _OTHERS.match(head))
    return False


def read_image(image: Any) -> tuple[bytes, str]:
    """Reads an image into bytes that the graph decodes, and says what is wrong.

    It may be a path, an address (http or https), encoded bytes, a file opened
    for bytes, or an image of Pillow. What Pillow reads is upright, and a PNG.
    """
    try:
        if hasattr(image, "convert"):
            return _to_png(image), ""
        if isinstance(image, str) and image.startswith(("http:", "https:")):
            image = _download(image)
        elif isinstance(image, str | os.PathLike):
            image = Path(image).read_bytes()
        elif hasattr(image, "read"):
            image = image.read()
        return _convert(bytes(memoryview(image))), ""
    # Pillow's plug-ins raise anything for a damaged file.
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        getattr(error, "close", bool)()  # one of HTTP holds its connection
        return b"", f"expected an image, found: {reason}"


def report_unreadable(
    bad: list[str], total: int, *, skip_bad: bool, beside: Path | None = None
) -> None:
    """Logs which images, of `total`, cannot be read, with what is wrong.

    More than five are listed in a file next to `beside`, if given. Without
    `skip_bad` it raises an `InputError` if there are any.
    """
    if not bad:
        return
    named = "; ".join(bad)
    if beside is not None and len(bad) > _NAMED:
        path = beside.with_name(f"{beside.stem}-bad-images.txt")
        with write_atomically(path) as file:
            file.writelines(f"{each}\n" for each in bad)
        named = "; ".join(bad[:_NAMED]) + f"; … (all in {path})"
    found = f"{len(bad)} of {total} photos cannot be read: {named}"
    if not skip_bad:
        raise InputError(
            f"{found}. Mend them, or leave them out by --skip-bad."
        )
    _LOGGER.warning("%s. They are left out.", found)


def _download(address: str) -> bytearray:
    from urllib.request import Request, urlopen

    request = Request(address, headers={"User-Agent": "bmt-keras"})
    end, content = time.monotonic() + _SECONDS, bytearray()
    with urlopen(request, timeout=_SECONDS) as response:
        # By pieces: a slow server must not hold it for ever.
        while piece := response.read1():
            content += piece
            if time.monotonic() > end or len(content) > _BYTES:
                raise InputError(f"more than {_BYTES} bytes or {_SECONDS} s")
    return content


def _convert(content: bytes) -> bytes:
    """Makes a PNG of what the graph does not decode; gives all else back."""
    if _DECODED.match(content):
        return content
    try:
        from PIL import Image

        with suppress(ImportError):
            import pi_heif.HeifImagePlugin  # noqa: F401  (for Pillow)
        Image.init()
        # Pillow would have Ghostscript run an EPS.
        formats = [each for each in Image.OPEN if each != "EPS"]
        image = Image.open(io.BytesIO(content), formats=formats)
    except (ImportError, OSError) as error:
        if not _OTHERS.match(content):
            return content
        raise InputError(
            "HEIC, AVIF or TIFF, which `pip install 'bmt-keras[images]'` "
            "makes readable, or a damaged file"
        ) from error
    with image:
        return _to_png(image)


def _to_png(image: Any) -> bytes:
    """Encodes the first frame of an image of Pillow, upright."""
    from PIL import ImageOps

    if image.width * image.height > _MAX_PIXELS:
        raise InputError(f"more than {_MAX_PIXELS} pixels")
    if image.mode in ("I", "F"):
        raise InputError("32 bits for each colour in place of 8 or 16")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB") and not image.mode.startswith("I;16"):
        image = image.convert("RGB")
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
