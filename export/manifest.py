"""`bmt.json`: what a served version was made of."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import keras
import tensorflow as tf

import bmt_keras
from bmt_keras.captioner import Captioner
from bmt_keras.data.images import MAX_PIXELS, PREPROCESSING_VERSION
from bmt_keras.presets import PRESETS

_FILE = "bmt.json"


def write_manifest(
    version_folder: Path,
    captioner: Captioner,
    *,
    version: int,
    signatures: Iterable[str],
) -> None:
    """Writes `bmt.json` into a version's folder.

    `preset` is the name of the preset that has just these settings, or null.

    Args:
        version_folder: Folder of the SavedModel.
        captioner: What was exported.
        version: Number of the version.
        signatures: Names of its signatures.
    """
    settings, tokenizer = captioner.settings, captioner.tokenizer
    presets = [name for name, preset in PRESETS.items() if preset == settings]
    content = {
        "version": version,
        "bmt_keras": bmt_keras.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "signatures": sorted(signatures),
        "preset": presets[0] if presets else None,
        "settings": dataclasses.asdict(settings),
        "vocabulary": {
            "size": tokenizer.vocabulary_size,
            "sha256": hashlib.sha256(tokenizer.proto).hexdigest(),
        },
        "preprocessing": {
            "version": PREPROCESSING_VERSION,
            "height": settings.image_height,
            "width": settings.image_width,
            "channels": "RGB",
            "resize": "bilinear",
            "max_pixels": MAX_PIXELS,
        },
    }
    text = json.dumps(content, indent=2) + "\n"
    (version_folder / _FILE).write_text(text, encoding="utf-8")
