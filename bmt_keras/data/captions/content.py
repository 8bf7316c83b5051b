"""The text of a captions file, whatever its compression and encoding."""

import gzip
import json
import zlib
from pathlib import Path

from bmt_keras.errors import InputError


def not_captions(path: Path, found: str) -> InputError:
    """Gives the error of what is none of the layouts."""
    return InputError(
        f"{path}: expected captions (COCO's or Karpathy's JSON, metadata.jsonl "
        "or .csv, Flickr's token.txt, results.csv or captions.txt, a folder or "
        f"a tar with a .txt beside each photo), found {found}."
    )


def read_text(path: Path) -> str:
    """Reads UTF-8 or UTF-16, plain or gzipped, or raises an `InputError`."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: expected a captions file, found no such file or folder."
        ) from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: it cannot be read: {error}.") from error
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected text in UTF-8 or UTF-16, found another byte at "
            f"{error.start} of a file that begins {content[:12]!r}."
        ) from error
