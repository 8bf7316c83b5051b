"""A WebDataset's tar, of which the texts are read; its photos lie unpacked."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from bmt_keras.data.captions.rows import Faults, Record
from bmt_keras.errors import InputError
from bmt_keras.image_files import IMAGE_SUFFIX


def read_tar(path: Path, faults: Faults) -> Iterator[Record]:
    """Gives the photos with the lines of their .txt, or else their .json."""
    photos: dict[str, str] = {}
    texts: dict[str, dict[str, object]] = {}
    for name, content in _read_files(path):
        stem, ending = os.path.splitext(name)
        try:
            if IMAGE_SUFFIX.fullmatch(ending):
                photos[name] = stem
            elif ending == ".txt":
                lines = str(content, json.detect_encoding(content)).split("\n")
                texts[stem] = {"captions": [*filter(str.strip, lines)] or [""]}
            elif ending == ".json":
                texts.setdefault(stem, {**json.loads(content)})
        except (ValueError, TypeError, RecursionError):
            faults.add(name, "text, or an object of JSON", content)
    for name, stem in photos.items():
        yield name, {**texts.get(stem, {"captions": []}), "file_name": name}


def _read_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Gives the names of files, and the contents of texts among them."""
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.size < 0:  # which would never end
                    raise tarfile.ReadError(f"{member.size} bytes")
                ends = member.name.endswith((".txt", ".json"))
                file = tar.extractfile(member) if ends else None
                # Not more: a tar of kilobytes can claim gigabytes.
                yield member.name, file.read(2**24) if file else b""
            # To `tarfile` a broken header ends a tar as well as its end does.
            end = tar.fileobj
            if end and end.seek(tar.offset) and any(end.read(512)):
                raise tarfile.ReadError(f"a broken header at {tar.offset}")
    except Exception as error:  # whatever `tarfile` meets in a broken one
        raise InputError(f"{path}: it is no sound tar: {error}.") from error
