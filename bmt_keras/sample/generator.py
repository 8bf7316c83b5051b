"""The sample as a folder in the layout of COCO captions.

```
images/train/000000000001.jpg ...   images/val/...
captions_train.json  captions_val.json    COCO's caption format
facts_train.json     facts_val.json       the scene of every image id
sample.json                               the settings it was written with
```
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bmt_keras.errors import InputError
from bmt_keras.sample.drawing import draw_picture
from bmt_keras.sample.facts import write_facts
from bmt_keras.sample.sampling import draw_scenes
from bmt_keras.sample.scenes import PICTURE_SIZE, Scene
from bmt_keras.sample.wording import write_captions

# Raise it with any change of scenes, pixels or wording.
SAMPLE_VERSION = 1
MANIFEST_NAME = "sample.json"

# Without chroma subsampling, which would wash out the colour of small shapes.
_JPEG_SETTINGS = [
    cv2.IMWRITE_JPEG_QUALITY,
    95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]


def write_sample(
    folder: str | Path, *, num_train: int, num_val: int, seed: int
) -> None:
    """Write the sample, unless the folder holds it already.

    The files are written to `<folder>.partial`, which is renamed at the end.
    The same settings give the same files, byte for byte.

    Args:
        folder: Where to write: a folder that does not exist, is empty, or
            holds a sample of the same settings, which is left as it is.
        num_train: Number of training pictures.
        num_val: Number of validation pictures; see
            `bmt_keras.sample.is_held_out`.
        seed: Seed of the scenes, not negative.

    Raises:
        InputError: If a number is out of range, or the folder holds anything
            else.
    """
    _check_settings(num_train=num_train, num_val=num_val, seed=seed)
    manifest = {
        "version": SAMPLE_VERSION,
        "seed": seed,
        "num_train": num_train,
        "num_val": num_val,
    }
    folder = Path(folder).resolve()
    if _is_occupied(folder):
        _check_manifest(folder, manifest)
        return
    partial = folder.with_name(f"{folder.name}.partial")
    _remove_leftover(partial)
    partial.mkdir(parents=True)
    try:
        # First of all, so that a leftover is known as one.
        _write_json(partial / MANIFEST_NAME, manifest)
        _write_splits(partial, num_train=num_train, num_val=num_val, seed=seed)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_splits(
    folder: Path, *, num_train: int, num_val: int, seed: int
) -> None:
    first_id = 1
    for index, (split, count) in enumerate(
        (("train", num_train), ("val", num_val))
    ):
        rng = np.random.default_rng([seed, index])
        scenes = draw_scenes(rng, count, held_out=split == "val")
        _write_split(folder, split, scenes=dict(enumerate(scenes, first_id)))
        first_id += count


def _write_split(folder: Path, split: str, *, scenes: dict[int, Scene]) -> None:
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
        "annotations": list(_annotations(scenes)),
    }


def _annotations(scenes: dict[int, Scene]) -> Iterator[dict[str, Any]]:
    for image_id, scene in scenes.items():
        for number, caption in enumerate(write_captions(scene)):
            yield {
                "id": image_id * 10 + number,
                "image_id": image_id,
                "caption": caption,
            }


def _file_name(image_id: int) -> str:
    return f"{image_id:012d}.jpg"


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _check_settings(*, num_train: int, num_val: int, seed: int) -> None:
    if num_train < 1 or num_val < 1 or seed < 0:
        raise InputError(
            "`num_train` and `num_val` must be positive, `seed` not negative. "
            f"Received: num_train={num_train}, num_val={num_val}, seed={seed}."
        )


def _is_occupied(folder: Path) -> bool:
    if folder.is_dir():
        return any(folder.iterdir())
    return folder.exists()


def _check_manifest(folder: Path, expected: dict[str, int]) -> None:
    try:
        found = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise InputError(
            f"{folder} exists and is not a sample data set. "
            "Choose another folder or remove this one."
        ) from err
    if found != expected:
        raise InputError(
            f"{folder} must hold the sample of {expected}. Found: {found}. "
            "Choose another folder or remove this one."
        )


def _remove_leftover(partial: Path) -> None:
    if not _is_occupied(partial):
        if partial.exists():
            partial.rmdir()
        return
    if not (partial / MANIFEST_NAME).is_file():
        raise InputError(
            f"{partial} is needed for writing, and holds other files. "
            "Move or remove it."
        )
    shutil.rmtree(partial)
