"""A folder of shards: hidden while it is written, with a manifest at the end.

The shards of an unfinished folder lie in a hidden one beside it. A run that is
killed leaves those it has finished; the next run keeps them, if they are of
the same photos and settings, and removes all else.
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmt_keras.atomic import write_atomically
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.feature_shards import ShardLayout, check_shards
from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)
_LOCK, _MANIFEST = "lock", "manifest.json"


@dataclass(frozen=True)
class Shard:
    """A shard to be written.

    Attributes:
        path: The file.
        photos: The photos whose features it is to hold.
    """

    path: Path
    photos: Sequence[CaptionedImage]


@dataclass(frozen=True)
class Manifest:
    """What a folder holds.

    Attributes:
        settings: All that its features depend on.
        shard_size: Photos of a shard, those that cannot be read counted.
        image_ids: The image ids of each shard, by its file's name.
    """

    settings: Mapping[str, Any]
    shard_size: int
    image_ids: Mapping[str, Sequence[int]]


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a folder, finished or not.

    Args:
        folder: The folder.

    Returns:
        The manifest.

    Raises:
        InputError: There is none, or it is no manifest.
    """
    if (folder / "features.npy").exists():
        raise InputError(
            f"{folder}: the cache was written by an earlier version, as one "
            "array in place of shards; delete the folder, or give another "
            "cache folder."
        )
    try:
        content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return Manifest(
            settings=dict(content["settings"]),
            shard_size=int(content["shard_size"]),
            image_ids={
                str(name): [int(image_id) for image_id in image_ids]
                for name, image_ids in content["shards"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise InputError(
            f"{folder}: expected features of photos, found none that are "
            "sound; delete the folder, or give another cache folder."
        ) from err


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest of a folder.

    Args:
        folder: The folder.
        manifest: What it holds.
    """
    content = {
        "settings": dict(manifest.settings),
        "shard_size": manifest.shard_size,
        "shards": dict(manifest.image_ids),
    }
    with write_atomically(folder / _MANIFEST) as file:
        json.dump(content, file)


def plan_shards(
    folder: Path, photos: Sequence[CaptionedImage], shard_size: int
) -> list[Shard]:
    """Cuts photos into shards.

    Args:
        folder: Where the shards are to lie.
        photos: The photos.
        shard_size: Photos of a shard; the last one may hold fewer.

    Returns:
        The shards, in the order of the photos.
    """
    starts = range(0, len(photos), shard_size)
    return [
        Shard(
            folder / f"features-{number:05d}-of-{len(starts):05d}.tfrecord",
            photos[start : start + shard_size],
        )
        for number, start in enumerate(starts)
    ]


@contextmanager
def unfinished_folder(
    folder: Path, settings: Mapping[str, Any], shard_size: int
) -> Iterator[tuple[Path, int]]:
    """Makes or takes up the hidden folder that becomes `folder` at the end.

    If the block raises, finished shards stay for the next run.

    Args:
        folder: The folder's place; nothing may be there.
        settings: All that the features depend on.
        shard_size: Photos of a shard.

    Yields:
        The hidden folder, and the photos of a shard: those that it was begun
        with.

    Raises:
        InputError: Another process is writing it.
    """
    hidden = _hidden(folder)
    hidden.mkdir(parents=True, exist_ok=True)
    with (hidden / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise InputError(
                f"{folder}: another process is writing these features; let it "
                "end, or give another cache folder."
            ) from err
        try:
            yield hidden, _begin(hidden, settings, shard_size)
            (hidden / _LOCK).unlink()
            hidden.rename(folder)
        except BaseException:
            if not any(path.stat().st_size for path in _shards_in(hidden)):
                shutil.rmtree(hidden)
            raise


def take_up_again(folder: Path) -> None:
    """Makes a finished folder an unfinished one, for lost shards to be made.

    Args:
        folder: The folder.
    """
    shutil.rmtree(_hidden(folder), ignore_errors=True)
    folder.rename(_hidden(folder))


def find_missing(shards: Sequence[Shard], layout: ShardLayout) -> list[Shard]:
    """Finds what is left to do; shards that are not sound are removed.

    Args:
        shards: All shards of an unfinished folder.
        layout: Shape and type of the features.

    Returns:
        The shards that are not there.
    """
    there = [shard.path for shard in shards if shard.path.exists()]
    for path, fault in check_shards(there, layout):
        if fault:
            _LOGGER.warning("%s is made anew: %s.", path, fault)
            path.unlink()
    missing = [shard for shard in shards if not shard.path.exists()]
    if len(missing) < len(shards):
        done = len(shards) - len(missing)
        _LOGGER.info("Going on: %d of %d shards are there.", done, len(shards))
    return missing


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _shards_in(folder: Path) -> list[Path]:
    return list(folder.glob("features-*.tfrecord"))


def _begin(hidden: Path, settings: Mapping[str, Any], shard_size: int) -> int:
    """Keeps the shards of a run with the same settings, and nothing else."""
    kept = {hidden / _LOCK}
    try:
        found = read_manifest(hidden)
        if found.settings == settings:
            kept |= {hidden / _MANIFEST, *_shards_in(hidden)}
            shard_size = found.shard_size
    except InputError:
        pass  # killed before it was written, or of an earlier version
    for path in set(hidden.iterdir()) - kept:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if hidden / _MANIFEST not in kept:
        write_manifest(hidden, Manifest(settings, shard_size, {}))
    return shard_size
