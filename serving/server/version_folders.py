"""A model's versions: numbered folders under its base path, and a choice."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from ..errors import ServingError

_LARGEST_VERSION = 2**63 - 1


@dataclass(frozen=True, order=True)
class VersionFolder:
    """A version of a model on disk.

    Args:
        version: The folder's name as a number.
        path: Folder of the SavedModel.
    """

    version: int
    path: Path


def find_version_folders(base_path: Path) -> list[VersionFolder]:
    """Finds the versions of a model, the oldest first.

    Args:
        base_path: Its numbered subfolders are versions: "00000123" is version
            123. Everything else in it is ignored, numbers of more than 64 bits
            included, so that a new version can be written under another name
            and then renamed.

    Returns:
        The versions; empty if there is none.

    Raises:
        ServingError: If there is no such folder.
    """
    if not base_path.is_dir():
        raise ServingError(
            f"A model's base path must be a folder. Not found: {base_path}. "
            "Export a model into it first."
        )
    folders = sorted(
        VersionFolder(int(path.name), path)
        for path in base_path.iterdir()
        if re.fullmatch("[0-9]+", path.name)
        and int(path.name) <= _LARGEST_VERSION
        and path.is_dir()
    )
    # "7" and "007" are one version.
    return list({folder.version: folder for folder in folders}.values())


def find_latest_version(base_path: Path) -> VersionFolder:
    """Finds the latest version of a model.

    Raises:
        ServingError: If there is no version, or no such folder.
    """
    folders = find_version_folders(base_path)
    if not folders:
        raise ServingError(explain_no_version(base_path))
    return folders[-1]


def explain_no_version(base_path: Path) -> str:
    """Says that a base path has no version, and what it has."""
    names = sorted(path.name for path in base_path.iterdir())
    return (
        "A model's base path must hold a folder named by a version number that "
        f"is to be served, such as {base_path / '1'}. Found: "
        f"{names or 'nothing'}. Export a model into it, or name the folder "
        "above the version."
    )


def choose_versions(
    folders: Sequence[VersionFolder], model: ModelConfig
) -> list[VersionFolder]:
    """Chooses the versions to serve.

    Args:
        folders: The versions on disk, the oldest first.
        model: Its policy is `latest` with the number of versions, `all`, or
            `specific` with the versions. Unset means the latest.

    Returns:
        The chosen versions, the oldest first. A specific version that has no
        folder is left out.
    """
    policy = model.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return list(folders)
    if kind == "specific":
        wanted = set(policy.specific.versions)
        return [folder for folder in folders if folder.version in wanted]
    return list(folders[-max(policy.latest.num_versions, 1) :])
