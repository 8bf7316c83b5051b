"""Photos with their captions, drawn into one picture."""

from collections.abc import Sequence
from pathlib import Path


def draw_photos(
    path: Path, photos: Sequence[Path], captions: Sequence[str]
) -> None:
    """Reads photos and draws them in a grid, each over its caption.

    Args:
        path: The PNG file to write.
        photos: Photo files.
        captions: Their captions.
    """
    import tensorflow as tf

    from bmt_keras.data.images import decode_rgb
    from bmt_keras.plots import draw_caption_grid

    pixels = [decode_rgb(tf.io.read_file(str(p))).numpy() for p in photos]
    columns = 3 if len(photos) <= 9 else 4
    draw_caption_grid(pixels, captions, path, columns=columns)
