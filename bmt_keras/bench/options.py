"""What a run of the benchmark measures, and on what."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bmt_keras.presets import resolve_settings
from bmt_keras.settings import Settings

EPOCHS = 20  # of the run over which caching is averaged
GROUPS = (
    "training",
    "pipeline",
    "captioning",
    "preparation",
    "export",
    "growth",
)
OPTIONAL = ("peers", "accelerator")  # measured only when they are named


@dataclass(frozen=True)
class BenchOptions:
    """Sizes of the benchmark and its data.

    Attributes:
        captions: Captions in COCO's format.
        images: Folder of the photos.
        rounds: Rounds in which all cases of a group take turns.
        steps: Batches that one round takes of each way to train; for each of
            them it prepares `preparation_cases.PHOTOS`.
        limit: Use only the first so many photos; None for all.
        match: Measure only the lines with this in their names.
        memory_photos: Numbers of photos of which the memory of preparing them
            is told.
        overrides: Fields that are set otherwise in all presets.
    """

    captions: Path
    images: Path
    rounds: int = 5
    steps: int = 12
    limit: int | None = None
    match: str = ""
    memory_photos: tuple[int, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, preset: str, **changes: Any) -> Settings:
        """A preset with random weights, but for what is given.

        Args:
            preset: Its name.
            **changes: Fields that the measured case sets.

        Returns:
            The settings.
        """
        given = {k: v for k, v in self.overrides.items() if v is not None}
        fields = {
            "epochs": EPOCHS,
            "text_weights": "random",
            "image_weights": "random",
            "pretrained_head": False,
            **given,
        }
        settings = resolve_settings(preset, fields)
        return dataclasses.replace(settings, **changes)
