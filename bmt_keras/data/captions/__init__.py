"""Images and their captions, from any of the layouts that people bring."""

from bmt_keras.data.captions.captioned_images import (
    CaptionedImage,
    drop_final_period,
    read_captions,
    read_references,
    read_sides,
    read_texts,
    split_images,
)

__all__ = [
    "CaptionedImage",
    "drop_final_period",
    "read_captions",
    "read_references",
    "read_sides",
    "read_texts",
    "split_images",
]
