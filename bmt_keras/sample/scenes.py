"""What a picture of the sample shows: its scene, as facts.

A scene is a plain background with one object or two. Two objects are apart on
one axis and nearly aligned on the other, so that exactly one of the four
relations holds from the first to the second, and they differ in colour or
shape, so that a statement about either is decidable.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from bmt_keras.errors import InputError

PICTURE_SIZE = 64  # pixels, height and width
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
BACKGROUNDS = ("white", "gray", "black")
DIAMETERS = {"small": 14, "large": 26}  # pixels across
SIZES = tuple(DIAMETERS)
INVERSE_RELATIONS = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
MIN_GAP = 4  # pixels between two objects, on the axis of their relation
MAX_OFFSET = 4  # pixels between their centres, on the other axis


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Args:
        shape: One of `SHAPES`.
        colour: One of `COLOURS`.
        size: One of `SIZES`.
        x: Centre in pixels from the left edge; the object lies inside the
            picture.
        y: Centre in pixels from the upper edge.

    Raises:
        InputError: A value is not one of these.
    """

    shape: str
    colour: str
    size: str
    x: int
    y: int

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

    Args:
        background: One of `BACKGROUNDS`.
        objects: One `SceneObject` or two, the left or upper one first.

    Raises:
        InputError: The background is unknown, or two objects are alike in
            colour and shape, in no relation, or the other way round.

    Example:
        >>> circle = SceneObject("circle", "red", "small", 16, 32)
        >>> square = SceneObject("square", "blue", "large", 48, 33)
        >>> Scene("white", (circle, square)).relation
        'left of'
    """

    background: str
    objects: tuple[SceneObject, ...]

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
        if len(self.objects) == 1:
            return None
        return find_relation(*self.objects)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as values that JSON can hold."""
        return {
            "background": self.background,
            "objects": [dataclasses.asdict(item) for item in self.objects],
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Read facts as `to_dict` writes them.

        Raises:
            InputError: A key is missing or unknown, or a value is wrong.
        """
        _check_keys("a scene", facts, cls)
        if not isinstance(facts["objects"], list | tuple):
            raise InputError(
                "Facts of a scene must list its objects. "
                f"Received: objects={facts['objects']!r}."
            )
        for item in facts["objects"]:
            _check_keys("an object", item, SceneObject)
        objects = tuple(SceneObject(**item) for item in facts["objects"])
        return cls(facts["background"], objects)


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
    if not isinstance(value, str) or value not in choices:
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


def _check_keys(what: str, facts: object, facts_class: type) -> None:
    expected = {field.name for field in dataclasses.fields(facts_class)}
    found = set(facts) if isinstance(facts, Mapping) else None
    if found != expected:
        raise InputError(
            f"Facts of {what} must have the keys "
            f"{', '.join(sorted(expected))}. Received: {facts!r}."
        )
