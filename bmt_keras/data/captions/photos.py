"""Finding the photos that a captions file names in a folder."""

import os
import tarfile
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath

from bmt_keras.errors import InputError

# The names in a folder, by what is the same of them on every system.
_Names = dict[str, list[str]]


def find_photos(
    folder: Path, names: Iterable[str], *, source: str | Path
) -> dict[str, Path]:
    """Gives the path of each name in the folder.

    Where a name is not there as it is written, the one file that fits is: with
    slashes for backslashes, composed accents for others, the extension in
    other case. One that is not there gets a path whose reading says so.

    Raises:
        InputError: None of the photos of the captions file `source` is there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of photos, found none.")
    # Each folder is listed once: no photo is looked up by itself.
    listing = cache(_list)
    paths = {name: folder / name for name in names}
    missing = []
    for name, path in paths.items():
        around, tail = os.path.split(path)
        if tail not in listing(around).get(_fold(tail), ()):
            missing.append(name)
    fits = {x: fit for x in missing if (fit := _find(folder, x, listing))}
    if missing and not fits and len(missing) == len(paths):
        above = Path(os.path.abspath(folder)).parent
        near = [x for each in (folder, above) for x in sorted(each.glob("*/"))]
        meant = [x for x in [*near, above] if _find(x, missing[0], listing)]
        hint = f"; did you mean {meant[0]}?" if meant else "."
        if Path(source).is_file() and tarfile.is_tarfile(source):
            hint = f"; unpack them by `tar -xf {source} -C {folder}`."
        raise InputError(
            f"{folder}: none of the {len(paths):,} photos of {source} is "
            f"there, such as {missing[0][:99]}{hint}"
        )
    return {**paths, **fits}


def _find(
    folder: Path, name: str, listing: Callable[[str], _Names]
) -> Path | None:
    for part in PurePosixPath(name.replace("\\", "/")).parts:
        fits = listing(str(folder)).get(_fold(part), [])
        if part not in fits and len(fits) != 1:
            return None
        folder /= part if part in fits else fits[0]
    return folder


def _list(folder: str) -> _Names:
    names = defaultdict(list)
    # What cannot be listed, as a file, holds nothing.
    with suppress(OSError, ValueError):
        for name in os.listdir(folder or "."):
            names[_fold(name)].append(name)
    return names


def _fold(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return unicodedata.normalize("NFC", stem) + extension.lower()
