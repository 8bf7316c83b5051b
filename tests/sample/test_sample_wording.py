import re

from bmt_keras.sample import write_captions
from bmt_keras.sample.wording import ONE_OBJECT_TEMPLATES, TWO_OBJECT_TEMPLATES


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
