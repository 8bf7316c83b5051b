"""The sample as a folder in the layout of COCO captions.

```
images/train/000000000001.jpg ...   images/val/...
captions_train.json  captions_val.json    COCO's caption format
facts_train.json     facts_val.json       the scene of every image id
sample.json                               the settings it was written with
```
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bmt_keras.atomic import write_folder_atomically
from bmt_keras.errors import InputError
from bmt_keras.sample.captions import write_captions
from bmt_keras.sample.drawing import draw_picture
from bmt_keras.sample.sampling import draw_scenes
from bmt_keras.sample.scenes import PICTURE_SIZE, Scene, write_facts

# Raise it with any change of scenes, pixels or wording.
SAMPLE_VERSION = 1
MANIFEST_NAME = "sample.json"

# Without chroma subsampling, which would wash out the colour of small shapes.
_JPEG_SETTINGS = [
    *(cv2.IMWRITE_JPEG_QUALITY, 95),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
]


def write_sample(
    folder: str | Path, *, num_train: int, num_val: int, seed: int
) -> None:
    """Write the sample, unless the folder holds it already.

    The same settings give the same files, byte for byte.

    Args:
        folder: Where to write: a folder that does not exist, is empty, or
            holds a sample of the same settings, which is left as it is.
        num_train: Number of training pictures.
        num_val: Number of validation pictures; see
            `bmt_keras.sample.is_held_out`.
        seed: Seed of the scenes, not negative.

    Raises:
        InputError: A number is out of range, or the folder holds other things.
    """
    if num_train < 1 or num_val < 1 or seed < 0:
        raise InputError(
            "`num_train` and `num_val` must be positive, `seed` not negative. "
            f"Received: num_train={num_train}, num_val={num_val}, seed={seed}."
        )
    manifest = {
        "version": SAMPLE_VERSION,
        "seed": seed,
        "num_train": num_train,
        "num_val": num_val,
    }
    folder = Path(folder).resolve()
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not is_empty:
        _check_manifest(folder, manifest)
        return
    with write_folder_atomically(folder, replace=is_empty) as hidden:
        _write_json(hidden / MANIFEST_NAME, manifest)
        first_id = 1
        counts = {"train": num_train, "val": num_val}
        for index, (split, count) in enumerate(counts.items()):
            # A stream for each split: more of one leaves the other as it is.
            rng = np.random.default_rng([seed, index])
            scenes = draw_scenes(rng, count, held_out=split == "val")
            _write_split(hidden, split, dict(enumerate(scenes, first_id)))
            first_id += count


def _write_split(folder: Path, split: str, scenes: dict[int, Scene]) -> None:
    images = folder / "images" / split
    images.mkdir(parents=True)
    for image_id, scene in scenes.items():
        # OpenCV takes blue first.
        pixels = draw_picture(scene)[:, :, ::-1]
        _, data = cv2.imencode(".jpg", pixels, _JPEG_SETTINGS)
        (images / _file_name(image_id)).write_bytes(data.tobytes())
    _write_json(folder / f"captions_{split}.json", _to_coco(scenes))
    write_facts(folder / f"facts_{split}.json", scenes)


def _to_coco(scenes: dict[int, Scene]) -> dict[str, Any]:
    return {
        "info": {
            "description": "Drawn shapes with captions that are true by rule",
            "version": str(SAMPLE_VERSION),
        },
        "licenses": [],
        "images": [
            {
                "id": image_id,
                "file_name": _file_name(image_id),
                "height": PICTURE_SIZE,
                "width": PICTURE_SIZE,
            }
            for image_id in scenes
        ],
        "annotations": [
            # Five captions of an image: ten ids are enough.
            {"id": image_id * 10 + i, "image_id": image_id, "caption": caption}
            for image_id, scene in scenes.items()
            for i, caption in enumerate(write_captions(scene))
        ],
    }


def _file_name(image_id: int) -> str:
    return f"{image_id:012d}.jpg"


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _check_manifest(folder: Path, expected: dict[str, int]) -> None:
    try:
        found = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} exists and is not a sample data set. "
            "Choose another folder or remove this one."
        ) from error
    if found != expected:
        raise InputError(
            f"{folder} must hold the sample of {expected}. Found: {found}. "
            "Choose another folder or remove this one."
        )
