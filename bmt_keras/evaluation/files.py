"""Captions and scores as JSON files, written whole or not at all."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from bmt_keras.atomic import write_atomically


def write_coco_results(
    path: str | Path, predictions: Mapping[int, str]
) -> None:
    """Writes captions by image id in COCO's results format, sorted by id.

    The file is a list of `{"image_id": ..., "caption": ...}`.
    """
    results = [
        {"image_id": int(image_id), "caption": predictions[image_id]}
        for image_id in sorted(predictions)
    ]
    with write_atomically(path) as file:
        json.dump(results, file, indent=2, ensure_ascii=False)
        file.write("\n")


def write_metrics(path: str | Path, metrics: Mapping[str, float]) -> None:
    """Writes numbers as JSON, sorted by name, floats rounded to 6 digits.

    Raises:
        ValueError: If a number is infinite or not a number.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(
                f"Metrics must be finite numbers. Received: {name}={value}"
            )
    # JSON has no NumPy numbers, and no NaN.
    rounded = {
        name: value if isinstance(value, int) else round(float(value), 6)
        for name, value in metrics.items()
    }
    with write_atomically(path) as file:
        json.dump(rounded, file, indent=2, sort_keys=True)
        file.write("\n")
