"""Five captions of a scene, and whether a caption is true of it.

A masked language model fills all words of a caption at once, so that two
wordings of equal length would be mixed. The ten templates therefore differ in
their number of words, and within a template the picture alone settles each
word: the order of two objects is that of the scene, or its reverse.
"""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

from bmt_keras.errors import InputError
from bmt_keras.sample.scenes import (
    Scene,
    SceneObject,
    find_relation,
    read_facts,
)

# Two words each, so that a template's number of words is always the same.
_RELATION_WORDS = {
    "left of": "left of",
    "right of": "right of",
    "above": "just above",
    "below": "just below",
}

ONE_OBJECT_TEMPLATES = (
    "just one {one.size} {one.colour} {one.shape}",
    "there is a {one.size} {one.colour} {one.shape}",
    "the picture shows only one {one.colour} {one.shape}",
    "a {one.size} {one.colour} {one.shape} on a {background} background",
    "on a {background} background "
    "there is only one {one.size} {one.colour} {one.shape}",
)
# `relation` is that of `one` to `two`, `inverse` that of `two` to `one`.
TWO_OBJECT_TEMPLATES = (
    "the {one.colour} {one.shape} sits {relation} the {two.colour} {two.shape}",
    "a {one.size} {one.colour} {one.shape} {relation} "
    "a {two.size} {two.colour} {two.shape}",
    "there is a {two.size} {two.colour} {two.shape} {inverse} "
    "a {one.size} {one.colour} {one.shape}",
    "a {one.size} {one.colour} {one.shape} together with "
    "a {two.size} {two.colour} {two.shape} on a {background} background",
    "on a {background} background "
    "the {two.size} {two.colour} {two.shape} is {inverse} "
    "the {one.size} {one.colour} {one.shape}",
)


def write_captions(scene: Scene) -> tuple[str, ...]:
    """Describe a scene in five captions of 5 to 15 words, shortest first."""
    return _describe(scene.objects, scene.background)


def caption_is_true(caption: str, scene: Scene) -> bool:
    """Tell whether every statement of a caption holds for a scene.

    A caption must be one of the wordings and name all objects: one that names
    a single object is false for a scene of two, even if that object is there.
    Case, extra spaces and a final full stop do not count.
    """
    words = " ".join(caption.lower().split()).removesuffix(".").rstrip()
    # Given which object comes first, the scene settles every word of a wording:
    # a caption with any other word states what is not there.
    return any(
        words in _describe(objects, scene.background)
        for objects in itertools.permutations(scene.objects)
    )


def _describe(
    objects: tuple[SceneObject, ...], background: str
) -> tuple[str, ...]:
    # A lone object is in no relation: its templates name neither.
    one, two = objects[0], objects[-1]
    relation, inverse = find_relation(one, two), find_relation(two, one)
    words = {
        "one": one,
        "two": two,
        "relation": _RELATION_WORDS.get(str(relation)),
        "inverse": _RELATION_WORDS.get(str(inverse)),
        "background": background,
    }
    is_lone = len(objects) == 1
    templates = ONE_OBJECT_TEMPLATES if is_lone else TWO_OBJECT_TEMPLATES
    return tuple(template.format(**words) for template in templates)


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
