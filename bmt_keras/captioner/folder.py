"""A captioner's folder, here or on the Hugging Face hub."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras

from bmt_keras.atomic import write_folder_atomically
from bmt_keras.captioner.captions import Calibration
from bmt_keras.captioner.graph import CaptionGraph
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.models.checkpoint_files import HUB_PREFIX, find_folder
from bmt_keras.settings import Settings

_MODEL, _IMAGE_TOWER = "model.keras", "image_tower.keras"
_VOCABULARY, _SETTINGS = "spiece.model", "settings.json"
_LENGTHS, _CALIBRATION = "lengths.json", "calibration.json"
# All that is downloaded from the hub: a repository may hold much else.
_FILES = [_MODEL, _IMAGE_TOWER, _VOCABULARY, _SETTINGS, _LENGTHS, _CALIBRATION]


def save_parts(
    graph: CaptionGraph, folder: Path, *, calibration: Calibration
) -> None:
    """As `Captioner.save_to_preset`; the folder is written whole or not."""
    if folder.exists() and not (folder / _MODEL).is_file():
        raise InputError(
            f"{folder}: expected no folder, or a captioner's to replace; "
            "found something else. Give another folder."
        )
    # The copy is not compiled: an optimizer would be most of the file.
    model = type(graph.model).from_config(graph.model.get_config())
    model.set_weights(graph.model.get_weights())
    with write_folder_atomically(folder, replace=True) as partial:
        model.save(partial / _MODEL)
        # A tower that is trained along is a part of the model.
        if graph.model.image_tower is None:
            # As it runs: to load and fold it again would take seconds.
            graph.embedder.save(partial / _IMAGE_TOWER)
        graph.tokenizer.save(partial / _VOCABULARY)
        graph.settings.save(partial / _SETTINGS)
        text = json.dumps(dataclasses.asdict(calibration))
        (partial / _CALIBRATION).write_text(text)
        if graph.length_counts is not None:
            counts = [int(count) for count in graph.length_counts]
            (partial / _LENGTHS).write_text(json.dumps(counts))


def load_parts(address: str | Path) -> dict[str, Any]:
    """The arguments of `Captioner`, read as `Captioner.from_preset` does."""
    folder = Path(address)
    if str(address).startswith(HUB_PREFIX):
        folder = find_folder(str(address), _FILES)
    if not (folder / _MODEL).is_file():
        raise InputError(
            f"{address}: expected a captioner's folder with {_MODEL}, found "
            "none; train one by `bmt train`."
        )
    # Two may be missing: a model may embed, and predict lengths, by itself.
    image_tower = folder / _IMAGE_TOWER
    return {
        "model": _load_model(folder / _MODEL),
        "tokenizer": CaptionTokenizer.from_file(folder / _VOCABULARY),
        "settings": Settings.load(folder / _SETTINGS),
        "image_tower": (
            _load_model(image_tower) if image_tower.is_file() else None
        ),
        "length_counts": _read_json(folder / _LENGTHS),
        "calibration": Calibration(**_read_json(folder / _CALIBRATION) or {}),
    }


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else None


def _load_model(path: Path) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False)
    # What Keras raises depends on where in the file the fault is.
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected a saved Keras model, found a file that does not "
            f"load: {error}"
        ) from error
