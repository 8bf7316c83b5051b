"""Exports, beside writing as many bytes as they have."""

import os
import shutil
from functools import cache, partial
from pathlib import Path

from bmt_keras.bench.captioning_cases import build_captioner
from bmt_keras.bench.case import Case, CaseBuilders, Row
from bmt_keras.bench.corpus import read_photos
from bmt_keras.bench.operations import weight_bytes
from bmt_keras.bench.options import BenchOptions
from bmt_keras.captioner import Captioner
from bmt_keras.export import export_captioner

PRESETS = ("coco", "small")
EXPORT, WRITING = "{}, export", "{}, writing the weights' bytes"


def export_rows() -> list[Row]:
    """The lines about exports."""
    return [
        Row(
            EXPORT.format(preset),
            {EXPORT.format(preset): 1},
            {WRITING.format(preset): 1},
        )
        for preset in PRESETS
    ]


class ExportCases:
    """Builds the cases.

    Args:
        options: What is measured.
        folder: Takes exports.
    """

    def __init__(self, options: BenchOptions, folder: Path) -> None:
        """Reads captions, for the vocabulary."""
        self._options = options
        self._folder = folder
        self._photos = read_photos(options)
        self._captioner = cache(self._build_captioner)

    @property
    def builders(self) -> CaseBuilders:
        """How each case is built."""
        return {
            name.format(preset): partial(build, preset)
            for preset in PRESETS
            for name, build in (
                (EXPORT, self._export),
                (WRITING, self._writing),
            )
        }

    def _export(self, preset: str) -> Case:
        captioner = self._captioner(preset)
        base = self._folder / preset
        figures: dict[str, float] = {}

        def run() -> None:
            if base.exists():
                shutil.rmtree(base)
            folder = export_captioner(captioner, base)
            files = [path for path in folder.rglob("*") if path.is_file()]
            size = sum(path.stat().st_size for path in files)
            figures["bytes over the weights'"] = size / _bytes(captioner)

        return Case(run, items=1, figures=figures)

    def _writing(self, preset: str) -> Case:
        content = os.urandom(int(_bytes(self._captioner(preset))))
        path = self._folder / f"{preset}.bytes"

        def run() -> None:
            with path.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

        return Case(run, items=1)

    def _build_captioner(self, preset: str) -> Captioner:
        return build_captioner(self._options.settings(preset), self._photos)


def _bytes(captioner: Captioner) -> float:
    return weight_bytes(captioner.model) + weight_bytes(captioner.image_encoder)
