"""What a picture of the sample shows: its scene, as facts, and their file.

A scene is a plain background with one object or two. Two objects are apart on
one axis and nearly aligned on the other, so that exactly one of the four
relations holds from the first to the second, and they differ in colour or
shape, so that a statement about either is decidable.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from bmt_keras.errors import InputError

PICTURE_SIZE = 64  # pixels, height and width
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
BACKGROUNDS = ("white", "gray", "black")
DIAMETERS = {"small": 14, "large": 26}  # pixels across
SIZES = tuple(DIAMETERS)
MIN_GAP = 4  # pixels between two objects, on the axis of their relation
MAX_OFFSET = 4  # pixels between their centres, on the other axis


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One object of a scene; an `InputError` where a value is none of these."""

    shape: str  # one of `SHAPES`
    colour: str  # one of `COLOURS`
    size: str  # one of `SIZES`
    x: int  # centre in pixels from the left edge; all of it lies inside
    y: int  # likewise from the upper edge

    def __post_init__(self) -> None:
        """Check every value."""
        _check_choice("shape", self.shape, SHAPES)
        _check_choice("colour", self.colour, COLOURS)
        _check_choice("size", self.size, SIZES)
        _check_centre("x", self.x, self.radius)
        _check_centre("y", self.y, self.radius)

    @property
    def radius(self) -> int:
        """Half of the object's extent, in pixels."""
        return DIAMETERS[self.size] // 2

    @property
    def look(self) -> tuple[str, str, str]:
        """Size, colour and shape: all but the place."""
        return self.size, self.colour, self.shape


@dataclasses.dataclass(frozen=True)
class Scene:
    """The facts of one picture.

    Raises:
        InputError: The background is unknown, or two objects are alike in
            colour and shape, in no relation, or the other way round.

    Example:
        >>> circle = SceneObject("circle", "red", "small", 16, 32)
        >>> square = SceneObject("square", "blue", "large", 48, 33)
        >>> Scene("white", (circle, square)).relation
        'left of'
    """

    background: str  # one of `BACKGROUNDS`
    objects: tuple[SceneObject, ...]  # one or two, the left or upper one first

    def __post_init__(self) -> None:
        """Check the background, then the objects together."""
        _check_choice("background", self.background, BACKGROUNDS)
        if len(self.objects) not in (1, 2):
            raise InputError(
                "A scene must have one object or two. "
                f"Received: {len(self.objects)}."
            )
        if len(self.objects) == 2:
            _check_pair(*self.objects)

    @property
    def relation(self) -> str | None:
        """How the first object lies to the second; None for one object."""
        return find_relation(self.objects[0], self.objects[-1])

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Read facts as `dataclasses.asdict` gives them.

        Raises:
            InputError: A key is missing or unknown, or a value is wrong.
        """
        try:
            objects = tuple(SceneObject(**item) for item in facts["objects"])
            return cls(**{**facts, "objects": objects})
        except (KeyError, TypeError) as error:
            raise InputError(
                "Facts of a scene must have a `background` and `objects`, each "
                "with `shape`, `colour`, `size`, `x` and `y`. "
                f"Received: {facts!r}."
            ) from error


def write_facts(path: str | Path, scenes: Mapping[int, Scene]) -> None:
    """Write scenes, by image id, as JSON."""
    facts = {str(key): dataclasses.asdict(scenes[key]) for key in scenes}
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


def find_relation(one: SceneObject, other: SceneObject) -> str | None:
    """Find the one relation in which an object lies to another.

    None if they are too close, or too far from being aligned.
    """
    right, down = other.x - one.x, other.y - one.y
    distance = one.radius + other.radius + MIN_GAP
    if abs(right) >= distance and abs(down) <= MAX_OFFSET:
        return "left of" if right > 0 else "right of"
    if abs(down) >= distance and abs(right) <= MAX_OFFSET:
        return "above" if down > 0 else "below"
    return None


def _check_pair(first: SceneObject, second: SceneObject) -> None:
    if (first.colour, first.shape) == (second.colour, second.shape):
        raise InputError(
            "Two objects of a scene must differ in colour or shape. "
            f"Received: twice {first.colour} {first.shape}."
        )
    if find_relation(first, second) not in ("left of", "above"):
        raise InputError(
            "The first object of a scene must be clearly left of or above the "
            f"second: {MIN_GAP} pixels apart on one axis, aligned to "
            f"{MAX_OFFSET} on the other. Received: {first}, {second}."
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(
            f"`{name}` must be one of {', '.join(choices)}. "
            f"Received: {name}={value!r}."
        )


def _check_centre(name: str, value: object, radius: int) -> None:
    low, high = radius, PICTURE_SIZE - radius
    # To Python a truth value is an int, too.
    if type(value) is not int or not low <= value <= high:
        raise InputError(
            f"`{name}` must be a whole number of pixels from {low} to {high}. "
            f"Received: {name}={value!r}."
        )
