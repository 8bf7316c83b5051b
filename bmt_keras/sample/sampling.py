"""Seeded random scenes, and which of them are held out of training."""

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from bmt_keras.sample.scenes import (
    BACKGROUNDS,
    COLOURS,
    PICTURE_SIZE,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
)

ONE_OBJECT_SHARE = 0.25
HELD_OUT_SHARE = 0.125

_MIDDLE = PICTURE_SIZE // 2
_HALF_DISTANCE = PICTURE_SIZE // 4  # from the middle to either of two objects
_LONE_JITTER = 6
_JITTER_ALONG = {"small": 3, "large": 1}  # on the axis of the relation
_JITTER_ACROSS = 2


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene.

    A quarter of the scenes has one object, near the middle. The others have
    two, near the middles of the left and right or upper and lower halves.
    """
    background = _pick(rng, BACKGROUNDS)
    if rng.random() < ONE_OBJECT_SHARE:
        x, y = (_MIDDLE + _jitter(rng, _LONE_JITTER) for _ in range(2))
        return Scene(background, (SceneObject(*_draw_look(rng), x, y),))
    first, second = _draw_look(rng), _draw_look(rng)
    # Of the same colour and shape, neither could be spoken of.
    while first[:2] == second[:2]:
        second = _draw_look(rng)
    side_by_side = rng.random() < 0.5
    objects = []
    for look, offset in ((first, -_HALF_DISTANCE), (second, _HALF_DISTANCE)):
        along = _MIDDLE + offset + _jitter(rng, _JITTER_ALONG[look[2]])
        across = _MIDDLE + _jitter(rng, _JITTER_ACROSS)
        x, y = (along, across) if side_by_side else (across, along)
        objects.append(SceneObject(*look, x, y))
    return Scene(background, tuple(objects))


def draw_scenes(
    rng: np.random.Generator, count: int, *, held_out: bool
) -> Iterator[Scene]:
    """Draw `count` scenes that are held out of training, or that are not."""
    while count > 0:
        scene = draw_scene(rng)
        if is_held_out(scene) == held_out:
            count -= 1
            yield scene


def is_held_out(scene: Scene) -> bool:
    """Tell whether a scene is kept for validation.

    The answer depends on the scene alone, not on a seed or a count, so that
    no training set ever meets a validation scene. Scenes of two objects are
    split by what they show, wherever it lies: validation then asks for
    combinations never seen in training.
    """
    facts: list[object] = [scene.background, scene.relation]
    # The few hundred looks of one object are all trained: split by place.
    if scene.relation is None:
        facts += [[*item.look, item.x, item.y] for item in scene.objects]
    else:
        facts += [item.look for item in scene.objects]
    # Not `hash`, which differs from process to process.
    digest = hashlib.sha256(json.dumps(facts).encode()).digest()
    return digest[0] < HELD_OUT_SHARE * 256


def _draw_look(rng: np.random.Generator) -> tuple[str, str, str]:
    return _pick(rng, SHAPES), _pick(rng, COLOURS), _pick(rng, SIZES)


def _jitter(rng: np.random.Generator, most: int) -> int:
    return int(rng.integers(-most, most + 1))


def _pick(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[rng.integers(len(values))]
