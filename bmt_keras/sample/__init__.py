"""The embedded sample: drawn pictures with captions that are true by rule."""

from bmt_keras.sample.captions import (
    caption_is_true,
    read_truth,
    write_captions,
)
from bmt_keras.sample.drawing import draw_picture
from bmt_keras.sample.generator import write_sample
from bmt_keras.sample.sampling import draw_scene, draw_scenes, is_held_out
from bmt_keras.sample.scenes import (
    Scene,
    SceneObject,
    read_facts,
    write_facts,
)

__all__ = [
    "Scene",
    "SceneObject",
    "caption_is_true",
    "draw_picture",
    "draw_scene",
    "draw_scenes",
    "is_held_out",
    "read_facts",
    "read_truth",
    "write_captions",
    "write_facts",
    "write_sample",
]
