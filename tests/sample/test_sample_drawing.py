import itertools

import numpy as np
import pytest

from bmt_keras.sample import Scene, SceneObject, draw_picture
from bmt_keras.sample.drawing import BACKGROUND_VALUES, COLOUR_VALUES
from bmt_keras.sample.scenes import SHAPES


def foreground(scene):
    pixels = draw_picture(scene).astype(int)
    background = BACKGROUND_VALUES[scene.background]
    return np.abs(pixels - background).max(axis=-1) > 64


def lone(shape, size):
    return Scene("white", (SceneObject(shape, "blue", size, 32, 32),))


def test_centre_has_the_colour_of_the_object_or_shows_through_a_ring(scenes):
    for scene in scenes[:100]:
        pixels = draw_picture(scene)
        assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)
        corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == BACKGROUND_VALUES[scene.background]).all()
        for item in scene.objects:
            if item.shape == "ring":
                expected = BACKGROUND_VALUES[scene.background]
                # Between the hole and the outer edge.
                side = pixels[item.y, item.x + round(0.77 * item.radius)]
                assert tuple(side) == COLOUR_VALUES[item.colour]
            else:
                expected = COLOUR_VALUES[item.colour]
            assert tuple(pixels[item.y, item.x]) == expected


def test_empty_pixels_lie_between_two_objects(scenes):
    for scene in scenes[:100]:
        if scene.relation is None:
            continue
        first, second = scene.objects
        filled = foreground(scene)
        name, axis = ("x", 0) if scene.relation == "left of" else ("y", 1)
        along = filled.any(axis=axis)
        start = getattr(first, name) + first.radius
        stop = getattr(second, name) - second.radius
        assert stop - start >= 4
        assert not along[start + 1 : stop - 1].any()


@pytest.mark.parametrize(("size", "across"), [("small", 14), ("large", 26)])
@pytest.mark.parametrize("shape", SHAPES)
def test_object_is_as_wide_as_its_size(shape, size, across):
    columns = np.flatnonzero(foreground(lone(shape, size)).any(axis=0))
    width = columns[-1] - columns[0] + 1
    # The arms of a star end a little inside its circle.
    low = 0.8 * across if shape == "star" else across - 1
    assert low <= width <= across + 1


@pytest.mark.parametrize("size", ["small", "large"])
def test_any_two_shapes_differ_in_a_sixth_of_the_box(size):
    masks = {shape: foreground(lone(shape, size)) for shape in SHAPES}
    box = masks["square"].sum()
    for one, other in itertools.combinations(SHAPES, 2):
        assert (masks[one] != masks[other]).sum() > box / 6


def test_edges_are_anti_aliased(lone_scene):
    pixels = draw_picture(lone_scene).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 5


def test_colours_are_far_apart_on_every_background():
    values = {**COLOUR_VALUES, **BACKGROUND_VALUES}
    for one, other in itertools.combinations(values.values(), 2):
        assert np.linalg.norm(np.subtract(one, other)) > 90


def test_moving_an_object_moves_its_pixels():
    still = Scene("black", (SceneObject("star", "cyan", "small", 30, 30),))
    moved = Scene("black", (SceneObject("star", "cyan", "small", 33, 32),))
    expected = np.roll(draw_picture(still), (2, 3), axis=(0, 1))
    np.testing.assert_array_equal(draw_picture(moved), expected)
