"""Images and their captions, from any of the layouts that people bring.

`layouts` recognises a file by its content; a file a layout gives its records,
`rows` checks them, `photos` finds their photos.
"""

from bmt_keras.data.captions.captioned_images import (
    CaptionedImage,
    drop_final_period,
    read_captions,
    read_sides,
    read_texts,
    split_images,
)

__all__ = [
    "CaptionedImage",
    "drop_final_period",
    "read_captions",
    "read_sides",
    "read_texts",
    "split_images",
]
