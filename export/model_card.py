"""`README.md` of a served version: what it does and how well."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bmt_keras import contract
from bmt_keras.captioner import Captioner
from bmt_keras.errors import InputError

_FILE = "README.md"
_METRICS = "metrics.json"

_PURPOSES = {
    contract.SERVING_DEFAULT: "a caption of a photo, with a score",
    contract.CAPTION_WITH_LENGTH: "the same, of so many tokens",
    contract.EMBED_IMAGE: "a photo's embedding",
    contract.CAPTION_EMBEDDING: "a caption of an embedding",
    contract.MASKED_LM: "the masked language model's logits",
    contract.FILL_MASK: "a caption with `[MASK]` completed, with candidates",
    contract.SCORE_CAPTION: "how likely a caption is for a photo",
}


def read_metrics(path: Path) -> dict[str, float]:
    """Reads figures that `bmt evaluate` wrote.

    Args:
        path: The JSON file.

    Returns:
        Numbers by name.

    Raises:
        InputError: The file is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise InputError(
            f"{path}: expected figures as `bmt evaluate` writes them, found "
            f"no such JSON: {err}."
        ) from err
    if not isinstance(content, dict) or not all(
        map(_is_number, content.values())
    ):
        raise InputError(
            f"{path}: expected figures as `bmt evaluate` writes them, numbers "
            "by name, found other JSON."
        )
    return content


def find_metrics(captioner_folder: Path) -> dict[str, float] | None:
    """Reads the figures beside a captioner's folder, if there are any.

    Args:
        captioner_folder: The captioner's folder.

    Returns:
        Numbers by name, or None.

    Raises:
        InputError: The file there holds something else.
    """
    path = captioner_folder.resolve().parent / _METRICS
    return read_metrics(path) if path.is_file() else None


def write_model_card(
    version_folder: Path,
    captioner: Captioner,
    *,
    signatures: Iterable[str],
    metrics: Mapping[str, float] | None,
) -> None:
    """Writes the model card of a version.

    Args:
        version_folder: Folder of the SavedModel.
        captioner: What was exported.
        signatures: Names of its signatures.
        metrics: Figures by name, or None.
    """
    settings = captioner.settings
    told = [f"| `{name}` | {_PURPOSES[name]} |" for name in signatures]
    lines = [
        "# A captioner of photos",
        "",
        "A masked language model that reads a photo and writes a caption in a "
        "few parallel passes, exported by bmt_keras for TensorFlow Serving.",
        "",
        *("| signature | gives |", "|---|---|", *told),
        "",
        f"- Photos: JPEG, PNG, GIF, BMP or WebP, resized to "
        f"{settings.image_width} x {settings.image_height} pixels; an EXIF "
        "rotation is ignored.",
        f"- Captions: up to {captioner.graph.max_words} tokens of a vocabulary "
        f"of {captioner.tokenizer.vocabulary_size}.",
        f"- Image model: {settings.image_model}; fusion: {settings.fusion}; "
        f"text model: ALBERT, {settings.text_weights} at the start.",
        "- A caption can be wrong. `score` tells how likely the model finds "
        "its words, not whether they are true.",
        "- `bmt.json` holds all settings and the vocabulary's hash.",
        "",
        "## Figures",
        "",
        *_figures(metrics),
    ]
    text = "\n".join(lines) + "\n"
    (version_folder / _FILE).write_text(text, encoding="utf-8")


def _figures(metrics: Mapping[str, float] | None) -> list[str]:
    if not metrics:
        return ["None were given at the export."]
    rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
    return ["| figure | value |", "|---|---|", *rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
