"""What a run begins with, besides its settings, kept in its folder."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.models.image_towers import fingerprint_weights

# What may differ, and the keys of an image by which it is compared.
_DIFFERENCES: dict[str, Callable[..., list[Any]]] = {
    "images on the other side": lambda side, name, *_: [(name, side)],
    "images of another size": lambda _, name, size, __: [(name, size)],
    "captions that differ": (
        lambda _, name, __, captions: [(name, text) for text in captions]
    ),
}


def identify(
    sides: Sequence[Sequence[CaptionedImage]],
    tokenizer: CaptionTokenizer,
    start: keras.Model | None,
) -> dict[str, Any]:
    """Gives images, vocabulary and first weights of a run, as JSON values."""
    return {
        "images": [
            [number, x.path.name, _read_size(x.path), list(x.captions)]
            for number, side in enumerate(sides)
            for x in side
        ],
        "vocabulary": tokenizer.vocabulary,
        "start": None if start is None else fingerprint_weights(start),
    }


def check_identity(path: Path, ours: dict[str, Any]) -> bytes:
    """Checks that the run of a folder, if any, began with the same.

    Returns:
        The content of the file at `path`; some 8 MB for COCO.

    Raises:
        InputError: It began with something else; the message says what.
    """
    faults: list[str] = []
    if path.exists():
        try:
            theirs = json.loads(gzip.decompress(path.read_bytes()))
            faults = [] if theirs == ours else [*_compare(theirs, ours)]
        except (OSError, EOFError, ValueError, zlib.error) as error:
            faults = [f"{path.name} cannot be read ({error})"]
    if faults:
        raise InputError(
            f"{path.parent}: the folder holds a run of other data: "
            f"{'; '.join(faults)}; give what it began with, give another "
            "--out, or delete the folder."
        )
    return gzip.compress(json.dumps(ours).encode(), 4)


def _read_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _compare(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    yield from _compare_images(theirs["images"], ours["images"])
    old, new = theirs["vocabulary"], ours["vocabulary"]
    others = [i for i, x in enumerate(new[: len(old)]) if x != old[i]]
    if len(old) != len(new):
        yield f"the vocabulary has {len(new):,} tokens, this run's {len(old):,}"
    elif others:
        yield (
            f"{len(others):,} tokens of the vocabulary are others, such as "
            f"{new[others[0]]!r} in place of {old[others[0]]!r}"
        )
    if theirs["start"] != ours["start"]:
        fault = "is another one" if ours["start"] else "is missing"
        fault = fault if theirs["start"] else "was not given"
        yield f"the captioner to start from (--start) {fault}"


def _compare_images(theirs: list[Any], ours: list[Any]) -> list[str]:
    sides = theirs, ours
    old, new = (Counter(name for _, name, *_ in rows) for rows in sides)
    counts = {
        "images added": (new - old).total(),
        "images missing": (old - new).total(),
    }
    shared = old.keys() & new.keys()
    for what, keys in _DIFFERENCES.items():
        was, now = (
            Counter(x for row in rows if row[1] in shared for x in keys(*row))
            for rows in sides
        )
        # What changed is once gone and once there.
        counts[what] = max((was - now).total(), (now - was).total())
    faults = [f"{what} ({count:,})" for what, count in counts.items() if count]
    if not faults and theirs != ours:
        return ["images or captions come in another order"]
    return faults
