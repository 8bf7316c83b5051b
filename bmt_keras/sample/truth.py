"""Whether a caption of the sample is true, told by rule.

A caption states facts; the rule reads them from any wording of
`bmt_keras.sample.wording` with any values, and compares each with the scene.
"""

import dataclasses
import itertools
import re

from bmt_keras.sample.scenes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    find_relation,
)
from bmt_keras.sample.wording import (
    ONE_OBJECT_TEMPLATES,
    RELATION_WORDS,
    TWO_OBJECT_TEMPLATES,
)

_RELATIONS_BY_WORDS = {words: name for name, words in RELATION_WORDS.items()}
_SLOT_VALUES = {
    "size": SIZES,
    "colour": COLOURS,
    "shape": SHAPES,
    "relation": tuple(_RELATIONS_BY_WORDS),
    "background": BACKGROUNDS,
}


@dataclasses.dataclass(frozen=True)
class Mention:
    """An object as a caption names it; `size` is None where it is left out."""

    shape: str
    colour: str
    size: str | None

    def matches(self, item: SceneObject) -> bool:
        """Tell whether all that is said holds for the object."""
        return (
            self.shape == item.shape
            and self.colour == item.colour
            and self.size in (None, item.size)
        )


@dataclasses.dataclass(frozen=True)
class Statement:
    """What a caption states; None where it says nothing."""

    mentions: tuple[Mention, ...]  # in the caption's order
    relation: str | None  # of the first mentioned to the second
    background: str | None


def parse_caption(caption: str) -> Statement | None:
    """Read what a caption states.

    Case, extra spaces and a final full stop do not count. None if the words
    are none of the wordings, as where one is missing or repeated.
    """
    words = " ".join(caption.lower().split()).removesuffix(".").rstrip()
    for pattern in _PATTERNS:
        found = pattern.fullmatch(words)
        if found:
            return _to_statement(found.groupdict())
    return None


def caption_is_true(caption: str, scene: Scene) -> bool:
    """Tell whether every statement of a caption holds for a scene.

    A caption must be one of the wordings and name all objects: one that names
    a single object is false for a scene of two, even if that object is there.
    """
    statement = parse_caption(caption)
    if statement is None:
        return False
    if statement.background not in (None, scene.background):
        return False
    if len(statement.mentions) != len(scene.objects):
        return False
    # Either object of the scene may be the one that is named first.
    return any(
        _holds(statement, objects)
        for objects in itertools.permutations(scene.objects)
    )


def _holds(statement: Statement, objects: tuple[SceneObject, ...]) -> bool:
    pairs = zip(statement.mentions, objects, strict=True)
    if not all(mention.matches(item) for mention, item in pairs):
        return False
    return statement.relation is None or (
        statement.relation == find_relation(*objects)
    )


def _to_statement(values: dict[str, str]) -> Statement:
    mentions = tuple(
        Mention(
            shape=values[f"{name}_shape"],
            colour=values[f"{name}_colour"],
            size=values.get(f"{name}_size"),
        )
        for name in ("one", "other")
        if f"{name}_shape" in values
    )
    relation = None
    if "relation" in values:
        relation = _RELATIONS_BY_WORDS[values["relation"]]
    return Statement(mentions, relation, values.get("background"))


def _to_pattern(text: str) -> re.Pattern[str]:
    def to_group(slot: re.Match[str]) -> str:
        name = slot[1]
        choices = "|".join(_SLOT_VALUES[name.split(".")[-1]])
        return f"(?P<{name.replace('.', '_')}>{choices})"

    return re.compile(re.sub(r"\{([a-z.]+)\}", to_group, text))


_PATTERNS = tuple(
    _to_pattern(template.text)
    for template in ONE_OBJECT_TEMPLATES + TWO_OBJECT_TEMPLATES
)
