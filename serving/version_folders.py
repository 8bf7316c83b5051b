"""Where a model's versions lie: numbered folders under its base path."""

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import ServingError


@dataclass(frozen=True, order=True)
class VersionFolder:
    """A version of a model on disk.

    Args:
        version: int. The folder's name as a number.
        path: Path of the SavedModel.
    """

    version: int
    path: Path


def find_version_folders(base_path: Path) -> list[VersionFolder]:
    """Finds the versions of a model, the oldest first.

    Args:
        base_path: Path whose numbered subfolders are versions: "00000123" is
            version 123. Everything else in it is ignored, so that a new
            version can be written beside its final name and then renamed.

    Returns:
        list of VersionFolder, by version.

    Raises:
        ServingError: If there is no such folder or no version in it.
    """
    if not base_path.is_dir():
        raise ServingError(
            f"A model's base path must be a folder. Not found: {base_path}. "
            "Export a model into it first."
        )
    folders = sorted(
        VersionFolder(int(path.name), path)
        for path in base_path.iterdir()
        if re.fullmatch("[0-9]+", path.name) and path.is_dir()
    )
    if not folders:
        names = sorted(path.name for path in base_path.iterdir())
        raise ServingError(
            "A model's base path must hold a folder named by a version number, "
            f"such as {base_path / '1'}. Found: {names or 'nothing'}. Export a "
            "model into it, or name the folder above the version."
        )
    return folders
