"""Captions and scores as JSON files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from bmt_keras.atomic import write_atomically

_DIGITS = 6


def write_coco_results(
    path: str | Path, predictions: Mapping[int, str]
) -> None:
    """Writes captions in COCO's results format, whole or not at all.

    Args:
        path: The JSON file: a list of `{"image_id": ..., "caption": ...}`,
            sorted by id.
        predictions: One caption per image, by image id.
    """
    results = [
        {"image_id": int(image_id), "caption": predictions[image_id]}
        for image_id in sorted(predictions)
    ]
    with write_atomically(path) as file:
        json.dump(results, file, indent=2, ensure_ascii=False)
        file.write("\n")


def write_metrics(path: str | Path, metrics: Mapping[str, float]) -> None:
    """Writes numbers as JSON, sorted by name, whole or not at all.

    Args:
        path: The JSON file.
        metrics: Finite numbers by name. They are rounded to 6 digits.

    Raises:
        ValueError: If a number is infinite or not a number.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(
                f"Metrics must be finite numbers. Received: {name}={value}"
            )
    rounded = {
        name: value if isinstance(value, int) else round(float(value), _DIGITS)
        for name, value in metrics.items()
    }
    with write_atomically(path) as file:
        json.dump(rounded, file, indent=2, sort_keys=True)
        file.write("\n")
