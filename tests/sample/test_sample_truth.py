import itertools

import pytest

from bmt_keras.sample import (
    Scene,
    caption_is_true,
    parse_caption,
    write_captions,
)
from bmt_keras.sample.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES
from bmt_keras.sample.truth import Mention, Statement

RELATIONS = ("left of", "right of", "just above", "just below")


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


def test_parsed_statement_names_the_facts_of_a_caption(lone_scene):
    caption = "the picture shows only one pink star"
    mentions = (Mention("star", "pink", None),)
    assert parse_caption(caption) == Statement(mentions, None, None)
    assert caption_is_true(caption, lone_scene)
    caption = (
        "on a black background "
        "the small cyan cross is just below the large pink ring"
    )
    assert parse_caption(caption) == Statement(
        (Mention("cross", "cyan", "small"), Mention("ring", "pink", "large")),
        relation="below",
        background="black",
    )


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
        assert parse_caption(caption) is None
        assert not caption_is_true(caption, lone_scene)
