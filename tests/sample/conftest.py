"""Scenes that the tests of the sample share."""

import numpy as np
import pytest

from bmt_keras.sample import Scene, SceneObject, draw_scene


@pytest.fixture(scope="session")
def scenes():
    rng = np.random.default_rng(7)
    return [draw_scene(rng) for _ in range(500)]


@pytest.fixture
def lone_scene():
    return Scene("gray", (SceneObject("star", "pink", "small", 30, 35),))


@pytest.fixture
def side_by_side():
    return Scene(
        "white",
        (
            SceneObject("circle", "red", "small", 16, 32),
            SceneObject("square", "blue", "large", 48, 33),
        ),
    )


@pytest.fixture
def stacked():
    return Scene(
        "black",
        (
            SceneObject("ring", "green", "large", 32, 16),
            SceneObject("ring", "yellow", "large", 30, 48),
        ),
    )
