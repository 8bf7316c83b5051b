"""A scene as pixels."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from bmt_keras.sample.scenes import PICTURE_SIZE, Scene, SceneObject

COLOUR_VALUES = {
    "red": (220, 20, 30),
    "orange": (255, 135, 0),
    "yellow": (255, 230, 20),
    "green": (20, 150, 40),
    "cyan": (0, 210, 225),
    "blue": (25, 60, 225),
    "purple": (135, 20, 170),
    "pink": (255, 125, 195),
}
BACKGROUND_VALUES = {
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "black": (0, 0, 0),
}

# Drawn four times as large and averaged: for smooth edges and pointed stars.
_OVERSAMPLING = 4
_RING_HOLE = 0.55  # of the radius
_STAR_NOTCH = 0.45  # of the radius
_CROSS_ARM = 0.3  # half of an arm's width, of the radius


def draw_picture(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene: uint8, (64, 64, 3), red, green and blue."""
    extent = PICTURE_SIZE * _OVERSAMPLING
    background = BACKGROUND_VALUES[scene.background]
    canvas = np.full((extent, extent, 3), background, np.uint8)
    for item in scene.objects:
        _draw_object(canvas, item, background)
    small = cv2.resize(
        canvas, (PICTURE_SIZE, PICTURE_SIZE), interpolation=cv2.INTER_AREA
    )
    return np.asarray(small, np.uint8)


def _draw_object(
    canvas: NDArray[np.uint8],
    item: SceneObject,
    background: tuple[int, int, int],
) -> None:
    colour = COLOUR_VALUES[item.colour]
    centre = (item.x * _OVERSAMPLING, item.y * _OVERSAMPLING)
    radius = item.radius * _OVERSAMPLING
    if item.shape in _OUTLINES:
        points = np.array(_OUTLINES[item.shape]) * radius + centre
        cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], colour)
        return
    cv2.circle(canvas, centre, radius, colour, cv2.FILLED)
    # The hole shows the background: objects never overlap.
    if item.shape == "ring":
        hole = round(radius * _RING_HOLE)
        cv2.circle(canvas, centre, hole, background, cv2.FILLED)


def _star_outline() -> list[tuple[float, float]]:
    points = []
    for corner in range(10):  # outer and inner ones in turn, from the top
        reach = 1.0 if corner % 2 == 0 else _STAR_NOTCH
        angle = math.pi * (corner / 5 - 0.5)
        points.append((reach * math.cos(angle), reach * math.sin(angle)))
    return points


def _cross_outline() -> list[tuple[float, float]]:
    arm = _CROSS_ARM
    quarter = [(-arm, -arm), (-arm, -1.0), (arm, -1.0)]
    points: list[tuple[float, float]] = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]  # turned by 90 degrees
    return points


# Corners of the shapes with straight edges, for a radius of 1 and y downwards.
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
    "triangle": [(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
    "star": _star_outline(),
    "cross": _cross_outline(),
}
