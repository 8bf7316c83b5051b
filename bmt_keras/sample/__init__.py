"""The embedded sample: drawn pictures with captions that are true by rule."""

from bmt_keras.sample.drawing import draw_picture
from bmt_keras.sample.facts import read_facts, read_truth, write_facts
from bmt_keras.sample.generator import write_sample
from bmt_keras.sample.sampling import draw_scene, draw_scenes, is_held_out
from bmt_keras.sample.scenes import Scene, SceneObject
from bmt_keras.sample.truth import caption_is_true, parse_caption
from bmt_keras.sample.wording import write_captions

__all__ = [
    "Scene",
    "SceneObject",
    "caption_is_true",
    "draw_picture",
    "draw_scene",
    "draw_scenes",
    "is_held_out",
    "parse_caption",
    "read_facts",
    "read_truth",
    "write_captions",
    "write_facts",
    "write_sample",
]
