"""A captioner's folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras

from bmt_keras.atomic import write_folder_atomically
from bmt_keras.caption_graph import CaptionGraph
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.evaluation import Calibration
from bmt_keras.settings import Settings

_MODEL, _ENCODER = "model.keras", "image_tower.keras"
_VOCABULARY, _SETTINGS = "spiece.model", "settings.json"
_LENGTHS, _CALIBRATION = "lengths.json", "calibration.json"


def save_parts(
    graph: CaptionGraph, folder: Path, *, calibration: Calibration
) -> None:
    """Writes a captioner's folder beside its place, then renames it.

    Args:
        graph: Holds the parts.
        folder: Where; an earlier captioner there is replaced.
        calibration: Of the confidences.

    Raises:
        InputError: The folder holds something else.
    """
    if folder.exists() and not (folder / _MODEL).is_file():
        raise InputError(
            f"{folder}: expected no folder, or a captioner's to replace; "
            "found something else. Give another folder."
        )
    with write_folder_atomically(folder, replace=True) as partial:
        graph.model.save(partial / _MODEL)
        if graph.model.image_tower is None:
            graph.image_tower.save(partial / _ENCODER)
        graph.tokenizer.save(partial / _VOCABULARY)
        graph.settings.save(partial / _SETTINGS)
        text = json.dumps(dataclasses.asdict(calibration))
        (partial / _CALIBRATION).write_text(text)
        if graph.length_counts is not None:
            counts = [int(count) for count in graph.length_counts]
            (partial / _LENGTHS).write_text(json.dumps(counts))


def load_parts(folder: Path) -> dict[str, Any]:
    """Reads a folder that `save_parts` wrote.

    Args:
        folder: The folder.

    Returns:
        The arguments of `Captioner`.

    Raises:
        InputError: The folder is missing or holds no captioner.
    """
    if not (folder / _MODEL).is_file():
        raise InputError(
            f"{folder}: expected a captioner's folder with {_MODEL}, found "
            "none; train one by `bmt train`."
        )
    encoder, lengths = folder / _ENCODER, folder / _LENGTHS
    calibration = folder / _CALIBRATION
    return {
        "model": _load_model(folder / _MODEL),
        "tokenizer": CaptionTokenizer.from_file(folder / _VOCABULARY),
        "settings": Settings.load(folder / _SETTINGS),
        "image_tower": _load_model(encoder) if encoder.is_file() else None,
        "length_counts": (
            json.loads(lengths.read_text()) if lengths.is_file() else None
        ),
        "calibration": (
            Calibration(**json.loads(calibration.read_text()))
            if calibration.is_file()
            else None
        ),
    }


def _load_model(path: Path) -> keras.Model:
    try:
        return keras.saving.load_model(path)
    except (ValueError, OSError, KeyError, TypeError) as err:
        raise InputError(
            f"{path}: expected a saved Keras model, found a file that does not "
            f"load: {err}"
        ) from err
