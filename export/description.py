"""What a version says of itself: `bmt.json` to programs, a card to people."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import tensorflow as tf

import bmt_keras
from bmt_keras import contract
from bmt_keras.captioner import Captioner
from bmt_keras.data.images import MAX_PIXELS, PREPROCESSING_VERSION
from bmt_keras.errors import InputError
from bmt_keras.presets import PRESETS

_PURPOSES = {
    contract.SERVING_DEFAULT: "a caption of an image, with a score",
    contract.CAPTION_WITH_LENGTH: "the same, with a given number of tokens",
    contract.EMBED_IMAGE: "an image's embedding",
    contract.CAPTION_EMBEDDING: "a caption of an embedding",
    contract.MASKED_LM: "the masked language model's logits",
    contract.FILL_MASK: "a caption with `[MASK]` completed, with candidates",
    contract.SCORE_CAPTION: "how likely a caption is for an image",
}

_CARD = """\
---
library_name: keras
pipeline_tag: image-to-text
tags:
- image-captioning
- tensorflow-serving
- bmt_keras
---

# A captioner of images

A masked language model that looks at an image and writes a caption in a few
parallel passes, exported by bmt_keras for TensorFlow Serving.

| signature | gives |
|---|---|
{signatures}

- Images: JPEG, PNG, GIF, BMP or WebP, resized to {settings.image.width} x
  {settings.image.height} pixels; as OpenCV reads them, unturned and with hidden
  colours: {settings.image.like_opencv}.
- Captions: up to {settings.text.max_caption_tokens} tokens of a vocabulary of
  {tokenizer.vocabulary_size}.
- Image model: {settings.image.model}; fusion: {settings.fusion.kind}; text
  model: ALBERT, {settings.text.weights} at the start.
- A caption can be wrong. `score` says how likely the model finds its words, not
  whether they are true.
- `bmt.json` holds all settings and the vocabulary's hash.

## Figures

{figures}
"""


def write_manifest(
    version_folder: Path,
    captioner: Captioner,
    version: int,
    signatures: Iterable[str],
) -> None:
    """Writes `bmt.json`: what a version was made of."""
    settings, tokenizer = captioner.settings, captioner.tokenizer
    # A captioner's own settings have no name.
    presets = (name for name, preset in PRESETS.items() if preset == settings)
    content = {
        "version": version,
        "bmt_keras": bmt_keras.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "signatures": sorted(signatures),
        "preset": next(presets, None),
        "settings": dataclasses.asdict(settings),
        "vocabulary": {
            "size": tokenizer.vocabulary_size,
            "sha256": hashlib.sha256(tokenizer.proto).hexdigest(),
        },
        "preprocessing": {
            "version": PREPROCESSING_VERSION,
            "height": settings.image.height,
            "width": settings.image.width,
            "channels": "RGB",
            "resize": "bilinear",
            "max_pixels": MAX_PIXELS,
        },
    }
    text = json.dumps(content, indent=2) + "\n"
    (version_folder / "bmt.json").write_text(text, encoding="utf-8")


def write_model_card(
    version_folder: Path,
    captioner: Captioner,
    signatures: Iterable[str],
    metrics: Mapping[str, float] | None,
) -> None:
    """Writes `README.md`: what a version does, and its figures by name."""
    figures = "None were given at the export."
    if metrics:
        rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
        figures = "\n".join(["| figure | value |", "|---|---|", *rows])
    table = [f"| `{name}` | {_PURPOSES[name]} |" for name in signatures]
    text = _CARD.format(
        signatures="\n".join(table),
        settings=captioner.settings,
        tokenizer=captioner.tokenizer,
        figures=figures,
    )
    (version_folder / "README.md").write_text(text, encoding="utf-8")


def read_metrics(path: Path) -> dict[str, float]:
    """Reads figures by name, as `bmt evaluate` wrote them.

    Raises:
        InputError: The file is missing or holds something else.
    """
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        return {name: float(value) for name, value in content.items()}
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected figures as `bmt evaluate` writes them, a JSON "
            f"object of numbers by name, found something else: {error}."
        ) from error
