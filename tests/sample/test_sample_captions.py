import itertools
import re

import pytest

from bmt_keras.sample import Scene, caption_is_true, write_captions
from bmt_keras.sample.captions import ONE_OBJECT_TEMPLATES, TWO_OBJECT_TEMPLATES
from bmt_keras.sample.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES

RELATIONS = ("left of", "right of", "just above", "just below")

# === Wording ===


def test_captions_of_one_object(lone_scene):
    assert write_captions(lone_scene) == (
        "just one small pink star",
        "there is a small pink star",
        "the picture shows only one pink star",
        "a small pink star on a gray background",
        "on a gray background there is only one small pink star",
    )


def test_captions_of_objects_side_by_side(side_by_side):
    assert write_captions(side_by_side) == (
        "the red circle sits left of the blue square",
        "a small red circle left of a large blue square",
        "there is a large blue square right of a small red circle",
        "a small red circle together with a large blue square "
        "on a white background",
        "on a white background "
        "the large blue square is right of the small red circle",
    )


def test_captions_of_stacked_objects(stacked):
    assert write_captions(stacked) == (
        "the green ring sits just above the yellow ring",
        "a large green ring just above a large yellow ring",
        "there is a large yellow ring just below a large green ring",
        "a large green ring together with a large yellow ring "
        "on a black background",
        "on a black background "
        "the large yellow ring is just below the large green ring",
    )


def test_number_of_words_settles_the_template(scenes):
    assert len(ONE_OBJECT_TEMPLATES + TWO_OBJECT_TEMPLATES) == 10
    words, one, two = set(), (5, 6, 7, 8, 11), (9, 10, 12, 14, 15)
    for scene in scenes:
        captions = write_captions(scene)
        lengths = tuple(len(text.split()) for text in captions)
        assert lengths == (one if scene.relation is None else two)
        for caption in captions:
            assert re.fullmatch("[a-z]+( [a-z]+)*", caption)
            words.update(caption.split())
    # 6 shapes, 8 colours, 2 sizes, 3 backgrounds and 19 others.
    assert len(words) == 38


# === Truth ===


def swap_one_word(caption):
    """Yield the caption with one fact replaced by another of its kind."""
    words = caption.split()
    for position, word in enumerate(words):
        for values in (SHAPES, COLOURS, SIZES, BACKGROUNDS):
            for value in set(values) - {word} if word in values else ():
                swapped = [*words[:position], value, *words[position + 1 :]]
                yield " ".join(swapped)
    for one, other in itertools.permutations(RELATIONS, 2):
        if one in caption:
            yield caption.replace(one, other)


def test_every_caption_of_a_scene_is_true(scenes):
    for scene in scenes:
        for caption in write_captions(scene):
            assert caption_is_true(caption, scene), (caption, scene)


def test_swapped_missing_or_repeated_words_make_a_caption_false(scenes):
    for scene in scenes[:100]:
        for caption in write_captions(scene):
            for swapped in swap_one_word(caption):
                assert not caption_is_true(swapped, scene), (swapped, scene)
            words = caption.split()
            for cut in range(len(words)):
                head, tail = words[:cut], words[cut:]
                missing = " ".join(head + tail[1:])
                repeated = " ".join(head + tail[:1] + tail)
                assert not caption_is_true(missing, scene), missing
                assert not caption_is_true(repeated, scene), repeated


def test_all_captions_hold_only_for_pictures_that_show_the_same(scenes):
    def shown(scene):
        looks = [item.look for item in scene.objects]
        return scene.background, scene.relation, looks

    for one, other in itertools.product(scenes[:60], scenes):
        captions = write_captions(one)
        all_true = all(caption_is_true(text, other) for text in captions)
        assert all_true == (shown(one) == shown(other))


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a small red circle left of a large blue square", True),
        ("a large blue square right of a small red circle", True),
        ("the blue square sits right of the red circle", True),
        ("there is a small red circle left of a large blue square", True),
        ("a large blue square left of a small red circle", False),
        ("a small red circle right of a large blue square", False),
        ("a small red circle just above a large blue square", False),
        ("a small blue circle left of a large red square", False),
        ("a large red circle left of a small blue square", False),
        ("the red square sits left of the blue circle", False),
        ("the red circle sits left of the red circle", False),
    ],
)
def test_relations_hold_from_either_object(side_by_side, caption, expected):
    assert caption_is_true(caption, side_by_side) is expected


def test_objects_together_may_come_in_any_order(stacked):
    for order, background, expected in (
        ("a large {0} together with a large {1}", "black", True),
        ("a large {1} together with a large {0}", "black", True),
        ("a large {0} together with a large {0}", "black", False),
        ("a large {0} together with a small {1}", "black", False),
        ("a large {0} together with a large {1}", "white", False),
    ):
        objects = order.format("green ring", "yellow ring")
        caption = f"{objects} on a {background} background"
        assert caption_is_true(caption, stacked) is expected


def test_caption_of_one_object_is_false_for_two_and_vice_versa(side_by_side):
    for item in side_by_side.objects:
        alone = Scene("white", (item,))
        for caption in write_captions(alone):
            assert caption_is_true(caption, alone)
            assert not caption_is_true(caption, side_by_side)
        for caption in write_captions(side_by_side):
            assert not caption_is_true(caption, alone)


def test_caption_may_leave_out_the_size_and_the_background(lone_scene):
    for caption, expected in (
        ("the picture shows only one pink star", True),
        ("the picture shows only one small pink star", False),
        ("just one small pink star", True),
        ("a small pink star on a gray background", True),
        ("a small pink star on a black background", False),
    ):
        assert caption_is_true(caption, lone_scene) is expected


def test_case_spaces_and_a_final_full_stop_do_not_count(lone_scene):
    assert caption_is_true("There is a small PINK star.", lone_scene)
    assert caption_is_true("  there is  a small pink star ", lone_scene)
    assert caption_is_true("there is a small pink star .", lone_scene)


def test_a_caption_of_other_words_is_false(lone_scene):
    for caption in (
        *("", " ", ".", "star"),
        "a small pink star",
        "there is a pink small star",
        "there is a small pink star..",
        "there is a small pink star left of",
        "there is a tiny pink star",
        "there is a small pink [MASK]",
        "thereisasmallpinkstar",
    ):
        assert not caption_is_true(caption, lone_scene)
