"""Five captions of a scene.

A masked language model fills all words of a caption at once, so that two
wordings of equal length would be mixed. The ten templates therefore differ in
their number of words, and within a template the picture alone settles each
word: the order of two objects is that of the scene, or its reverse.
"""

import dataclasses

from bmt_keras.sample.scenes import INVERSE_RELATIONS, Scene

# Two words each, so that a template's number of words is always the same.
RELATION_WORDS = {
    "left of": "left of",
    "right of": "right of",
    "above": "just above",
    "below": "just below",
}


@dataclasses.dataclass(frozen=True)
class Template:
    """One wording.

    Its slots are `background`, `relation`, and `size`, `colour` and `shape` of
    the objects `one` and `other`.
    """

    text: str
    reverse: bool = False  # `one` is the scene's second object


ONE_OBJECT_TEMPLATES = (
    Template("just one {one.size} {one.colour} {one.shape}"),
    Template("there is a {one.size} {one.colour} {one.shape}"),
    Template("the picture shows only one {one.colour} {one.shape}"),
    Template(
        "a {one.size} {one.colour} {one.shape} on a {background} background"
    ),
    Template(
        "on a {background} background "
        "there is only one {one.size} {one.colour} {one.shape}"
    ),
)
TWO_OBJECT_TEMPLATES = (
    Template(
        "the {one.colour} {one.shape} sits {relation} "
        "the {other.colour} {other.shape}"
    ),
    Template(
        "a {one.size} {one.colour} {one.shape} {relation} "
        "a {other.size} {other.colour} {other.shape}"
    ),
    Template(
        "there is a {one.size} {one.colour} {one.shape} {relation} "
        "a {other.size} {other.colour} {other.shape}",
        reverse=True,
    ),
    Template(
        "a {one.size} {one.colour} {one.shape} together with "
        "a {other.size} {other.colour} {other.shape} "
        "on a {background} background"
    ),
    Template(
        "on a {background} background "
        "the {one.size} {one.colour} {one.shape} is {relation} "
        "the {other.size} {other.colour} {other.shape}",
        reverse=True,
    ),
)


def write_captions(scene: Scene) -> tuple[str, ...]:
    """Describe a scene in five captions of 5 to 15 words, shortest first."""
    if scene.relation is None:
        one = scene.objects[0]
        return tuple(
            template.text.format(one=one, background=scene.background)
            for template in ONE_OBJECT_TEMPLATES
        )
    return tuple(_fill(template, scene) for template in TWO_OBJECT_TEMPLATES)


def _fill(template: Template, scene: Scene) -> str:
    one, other = scene.objects
    relation = str(scene.relation)
    if template.reverse:
        one, other = other, one
        relation = INVERSE_RELATIONS[relation]
    return template.text.format(
        one=one,
        other=other,
        relation=RELATION_WORDS[relation],
        background=scene.background,
    )
