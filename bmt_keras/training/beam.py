"""Features of images into shards, on the workers of Apache Beam.

Nothing else of the library imports Beam, an extra (`bmt-keras[beam]`).
"""

import json
import logging
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
import keras
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import create_runner

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.features import FeatureSource, write_features
from bmt_keras.data.store import Shard
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower
from bmt_keras.settings import Settings
from bmt_keras.training.data import feature_source


class BeamWriter:
    """Fills shards as `write_features` does, each on some worker of a runner.

    Workers build the image tower from the settings and compare its weights
    with those of this process. All see one file system, under the same paths.

    Args:
        settings: The image side and the seed are read.
        runner: Name of Beam's runner, such as `DirectRunner`.
        options: Options of the runner, as Beam takes them, in one string.

    Raises:
        InputError: There is no such runner, or not all that it needs.
    """

    def __init__(
        self, settings: Settings, *, runner: str, options: str = ""
    ) -> None:
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        try:
            create_runner(runner)
        except (ImportError, ValueError) as error:
            raise InputError(
                "`runner` must name a runner of Apache Beam that is installed. "
                f"Received: runner={runner} ({error})"
            ) from error
        if settings.image.weights not in ("imagenet", "random"):
            # Workers have working directories of their own.
            path = Path(settings.image.weights).absolute()
            settings = settings.replace(image_weights=str(path))
        self._settings = settings
        self._flags = [f"--runner={runner}", *shlex.split(options)]

    def __call__(
        self,
        shards: Sequence[Shard],
        source: FeatureSource,
        *,
        skip_bad: bool,
        on_progress: Callable[[int, int], None] | None,
    ) -> list[str]:
        """Writes shards of one folder, as `write_features` does.

        Shards with images that cannot be read are not written, all others are.

        Raises:
            InputError: Workers wrote elsewhere.
        """
        if not shards:
            return []
        tasks = shards[0].path.parent.absolute() / "tasks"
        tasks.mkdir()
        names = [_write_task(tasks, shard) for shard in shards]
        fill = FillShard(self._settings, source.settings, skip_bad)
        faults = str(tasks / "unreadable.txt")
        with beam.Pipeline(options=PipelineOptions(self._flags)) as pipeline:
            _ = (
                pipeline
                | "List shards" >> beam.Create(names)
                # Else a runner may fuse the steps, and one worker do all.
                | "Spread" >> beam.Reshuffle()
                | "Fill shards" >> beam.ParDo(fill)
                # Into one file, which is small.
                | "Write faults"
                >> beam.io.WriteToText(faults, shard_name_template="")
            )
        lines = Path(faults).read_text(encoding="utf-8").splitlines()
        bad = sorted(json.loads(line) for line in lines)
        lost = [shard for shard in shards if not shard.path.exists()]
        if lost and (skip_bad or not bad):
            raise InputError(
                f"{tasks.parent}: expected {len(shards)} shards written by the "
                f"workers, found {len(shards) - len(lost)}; workers must see "
                "this folder under the same path."
            )
        shutil.rmtree(tasks)
        if on_progress is not None:
            total = sum(len(shard.items) for shard in shards)
            on_progress(total, total)
        return bad


@dataclass(eq=False)
class FillShard(beam.DoFn):
    """Fills shards, with an image tower that it builds on its worker."""

    # What is pickled and sent to the workers: no model.
    settings: Settings
    expected: dict[str, Any]
    skip_bad: bool
    source: FeatureSource = field(init=False)

    def setup(self) -> None:
        """Builds the image tower, and refuses one of other features."""
        keras.utils.set_random_seed(self.settings.optimization.seed)
        image_tower = build_image_tower(self.settings)
        self.source = feature_source(self.settings, image_tower)
        if self.source.settings != self.expected:
            raise InputError(
                f"A worker makes features by {self.source.settings}, expected "
                f"{self.expected}; give all the same files and versions."
            )

    def process(self, task: str) -> Iterator[str]:
        """Fills the shard of a task's file; gives what is wrong with images."""
        shard = _read_task(task, self.source.row)
        faults = write_features([shard], self.source, skip_bad=self.skip_bad)
        yield from map(json.dumps, faults)


def _write_task(folder: Path, shard: Shard) -> str:
    # A file, as the images are too many in all to be part of a pipeline.
    task = folder / f"{shard.path.stem}.json"
    images = [
        (each.image_id, str(each.path.absolute())) for each in shard.items
    ]
    content = [str(shard.path.absolute()), shard.number, shard.key, images]
    task.write_text(json.dumps(content), encoding="utf-8")
    return str(task)


def _read_task(task: str, row: np.dtype[Any]) -> Shard:
    path, number, key, images = json.loads(Path(task).read_bytes())
    items = [CaptionedImage(id_, Path(image), ()) for id_, image in images]
    return Shard(Path(path), number, items, row, key)
