"""Karpathy's `dataset_*.json` of COCO, Flickr8k and Flickr30k, with splits.

Reference: https://cs.stanford.edu/people/karpathy/deepimagesent/
"""

from collections.abc import Iterator
from typing import Any

from bmt_keras.data.captions.rows import Record


def read_records(images: list[Any]) -> Iterator[Record]:
    """Gives the images, each with the raw text of its sentences."""
    for number, image in enumerate(images):
        fields = dict(image) if isinstance(image, dict) else {}
        if fields.get("filepath") and fields.get("filename"):
            fields["filename"] = f"{fields['filepath']}/{fields['filename']}"
        fields["image_id"] = fields.get("cocoid", fields.get("imgid"))
        if isinstance(sentences := fields.get("sentences"), list):
            fields["sentences"] = [
                each.get("raw") if isinstance(each, dict) else each
                for each in sentences
            ]
        yield f"images[{number}]", fields
