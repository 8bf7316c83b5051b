import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from bmt_keras.errors import InputError
from bmt_keras.sample import (
    Scene,
    SceneObject,
    draw_scene,
    draw_scenes,
    is_held_out,
)
from bmt_keras.sample.scenes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    find_relation,
)


def composition(scene):
    looks = tuple(item.look for item in scene.objects)
    return scene.background, scene.relation, looks


def test_relation_is_told_from_the_first_object_to_the_second(
    lone_scene, side_by_side, stacked
):
    assert lone_scene.relation is None
    for scene, relation, inverse in (
        (side_by_side, "left of", "right of"),
        (stacked, "above", "below"),
    ):
        assert scene.relation == relation
        assert find_relation(*scene.objects[::-1]) == inverse


def test_objects_too_close_or_askew_have_no_relation():
    def relation_to(x, y):
        return find_relation(one, SceneObject("star", "red", "small", x, y))

    one = SceneObject("circle", "red", "small", 20, 30)
    # 7 + 7 pixels of radius and a gap of 4.
    assert relation_to(38, 34) == "left of"
    assert relation_to(37, 30) is None
    assert relation_to(50, 35) is None


def test_facts_survive_json(scenes):
    for scene in scenes[:50]:
        text = json.dumps(dataclasses.asdict(scene))
        assert Scene.from_dict(json.loads(text)) == scene


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", "blob", "`shape` must be one of"),
        ("shape", ["ring"], "`shape` must be one of"),
        ("colour", "gray", "`colour` must be one of"),
        ("size", None, "`size` must be one of"),
        ("x", 6, "`x` must be a whole number of pixels from 7 to 57"),
        ("x", True, "`x` must be a whole number"),
        ("y", 58, "`y` must be a whole number"),
        ("y", 30.5, "`y` must be a whole number"),
    ],
)
def test_wrong_values_of_an_object_are_named(lone_scene, key, value, message):
    facts = dataclasses.asdict(lone_scene)
    facts["objects"][0][key] = value
    with pytest.raises(InputError, match=message):
        Scene.from_dict(facts)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (None, "Facts of a scene must have .* Received: None"),
        ([], "Facts of a scene must have"),
        ({"background": "white"}, "Facts of a scene must have a `background`"),
        ({"objects": []}, "Facts of a scene must have a `background`"),
        ({"background": "white", "objects": 3}, "each with `shape`"),
        ({"background": "white", "objects": []}, "one object or two"),
        ({"background": "white", "objects": [1]}, "each with `shape`"),
        ({"background": "white", "objects": [{}]}, "each with `shape`"),
        (
            {"background": "white", "objects": [], "seed": 1},
            "Facts of a scene must have",
        ),
    ],
)
def test_malformed_facts_are_refused(facts, message):
    with pytest.raises(InputError, match=message):
        Scene.from_dict(facts)


def test_scene_that_cannot_be_is_refused(lone_scene, side_by_side):
    with pytest.raises(InputError, match="`background` must be one of"):
        Scene("red", lone_scene.objects)
    with pytest.raises(InputError, match="clearly left of or above"):
        Scene("white", side_by_side.objects[::-1])
    alike = (
        SceneObject("star", "red", "small", 16, 32),
        SceneObject("star", "red", "large", 48, 32),
    )
    with pytest.raises(InputError, match="must differ in colour or shape"):
        Scene("white", alike)


def test_every_value_is_drawn_about_equally_often(scenes):
    objects = [item for scene in scenes for item in scene.objects]
    for values, found in (
        (SHAPES, [item.shape for item in objects]),
        (COLOURS, [item.colour for item in objects]),
        (SIZES, [item.size for item in objects]),
        (BACKGROUNDS, [scene.background for scene in scenes]),
    ):
        counts = Counter(found)
        assert set(counts) == set(values)
        fair = len(found) / len(values)
        assert all(0.7 * fair < count < 1.3 * fair for count in counts.values())


def test_a_quarter_of_the_scenes_has_one_object(scenes):
    counts = Counter(scene.relation for scene in scenes)
    assert 100 <= counts[None] <= 150
    assert counts["left of"] + counts["above"] == 500 - counts[None]
    assert min(counts["left of"], counts["above"]) > 150


def test_a_seed_settles_the_scenes():
    def draw(seed):
        rng = np.random.default_rng(seed)
        return [draw_scene(rng) for _ in range(20)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_held_out_scenes_share_no_composition_with_the_others():
    rng = np.random.default_rng(0)
    train = list(draw_scenes(rng, 2000, held_out=False))
    val = list(draw_scenes(rng, 200, held_out=True))
    assert (len(train), len(val)) == (2000, 200)
    assert not set(train) & set(val)
    trained = {composition(scene) for scene in train}
    for scene in val:
        assert len(scene.objects) == 1 or composition(scene) not in trained


def test_place_does_not_move_a_pair_across_the_split(scenes):
    assert 35 <= sum(map(is_held_out, scenes)) <= 90  # an eighth of 500
    pairs = [scene for scene in scenes if len(scene.objects) == 2]
    for scene in pairs:
        x, y = (1, 0) if scene.relation == "above" else (0, 1)
        objects = tuple(
            dataclasses.replace(each, x=each.x + x, y=each.y + y)
            for each in scene.objects
        )
        moved = dataclasses.replace(scene, objects=objects)
        assert is_held_out(moved) == is_held_out(scene)
