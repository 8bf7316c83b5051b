"""A folder of photos, each with a text of the same name beside it."""

import os
from collections.abc import Iterator
from pathlib import Path

from bmt_keras.data.captions.content import not_captions, read_text
from bmt_keras.data.captions.rows import Record
from bmt_keras.image_files import find_images


def read_records(folder: Path) -> Iterator[Record]:
    """Gives the photos; each line of the text beside one is a caption."""
    photos = [str(x.relative_to(folder)) for x in find_images([folder])]
    beside = {name: f"{os.path.splitext(name)[0]}.txt" for name in photos}
    texts = {text for text in beside.values() if (folder / text).is_file()}
    if not texts:
        found = f"a folder of {len(photos)} photos, none of which has a .txt"
        raise not_captions(folder, found)
    for name, text in beside.items():
        captions = []
        if text in texts:
            lines = read_text(folder / text).split("\n")
            captions = [line for line in lines if line.strip()] or [""]
        yield text, {"file_name": name, "captions": captions}
