"""The file of facts: the scene of every picture of a split."""

import json
from collections.abc import Mapping
from pathlib import Path

from bmt_keras.errors import InputError
from bmt_keras.sample.scenes import Scene


def write_facts(path: str | Path, scenes: Mapping[int, Scene]) -> None:
    """Write scenes as JSON, keyed by the id of their picture.

    Args:
        path: The file to write.
        scenes: The scene of each image id.
    """
    facts = {str(key): scene.to_dict() for key, scene in scenes.items()}
    Path(path).write_text(json.dumps(facts), encoding="utf-8")


def read_facts(path: str | Path) -> dict[int, Scene]:
    """Read what `write_facts` wrote.

    Args:
        path: The file to read.

    Returns:
        The scene of each image id.

    Raises:
        InputError: If the file cannot be read, is not JSON, or the facts of
            a picture are malformed; the message names file and picture.
    """
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise InputError(f"{path} must be a JSON file of facts: {err}") from err
    if not isinstance(facts, dict):
        raise InputError(
            f"{path} must hold facts by image id. "
            f"Received: a {type(facts).__name__}."
        )
    scenes = {}
    for key, value in facts.items():
        try:
            scenes[int(key)] = Scene.from_dict(value)
        except ValueError as err:
            raise InputError(f"{path}, image {key!r}: {err}") from err
    return scenes
