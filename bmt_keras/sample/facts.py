"""The file of facts: the scene of every picture of a split."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bmt_keras.errors import InputError
from bmt_keras.sample.scenes import Scene
from bmt_keras.sample.truth import caption_is_true


def write_facts(path: str | Path, scenes: Mapping[int, Scene]) -> None:
    """Write scenes, by image id, as JSON."""
    facts = {str(key): scene.to_dict() for key, scene in scenes.items()}
    Path(path).write_text(json.dumps(facts), encoding="utf-8")


def read_facts(path: str | Path) -> dict[int, Scene]:
    """Read the scene of each image id from what `write_facts` wrote.

    Raises:
        InputError: The file cannot be read, is not JSON, or the facts of a
            picture are malformed; the message names file and picture.
    """
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} must be a JSON file of facts: {error}"
        ) from error
    if not isinstance(facts, dict):
        raise InputError(
            f"{path} must hold facts by image id. "
            f"Received: a {type(facts).__name__}."
        )
    scenes = {}
    for key, value in facts.items():
        try:
            scenes[int(key)] = Scene.from_dict(value)
        # The facts' own errors are of this class, too.
        except ValueError as error:
            raise InputError(f"{path}, image {key!r}: {error}") from error
    return scenes


def read_truth(
    path: str | Path, image_ids: Iterable[int]
) -> Callable[[int, str], bool]:
    """Read facts into a rule: whether a caption of an image id is true.

    Raises:
        InputError: As from `read_facts`, or the facts lack one of the images.
    """
    scenes = read_facts(path)
    missing = [each for each in image_ids if each not in scenes]
    if missing:
        raise InputError(
            f"{path}: expected facts of every image, found none of image "
            f"{missing[0]} ({len(missing)} are missing)."
        )
    return lambda image_id, text: caption_is_true(text, scenes[image_id])
