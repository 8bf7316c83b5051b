"""Features of photos into shards, on the workers of Apache Beam.

Nothing else of the library imports Beam, an extra (`bmt-keras[beam]`).
"""

import json
import logging
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import keras
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import create_runner

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.feature_source import FeatureSource, compute_features
from bmt_keras.data.photo_reader import report_unreadable
from bmt_keras.data.shard_folder import Shard
from bmt_keras.data.shard_writing import fill_shard
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower
from bmt_keras.settings import Settings
from bmt_keras.training.data import feature_source

_FAULTS = "unreadable.txt"


class BeamWriter:
    """Fills shards as `write_shards` does, each on some worker of a runner.

    Workers build the image model from the settings and compare its weights
    with those of this process. They read photos and weights and write shards
    under the paths of this process: all see one file system.

    Args:
        settings: The image side and the seed are read.
        runner: Name of Beam's runner, such as `DirectRunner`.
        options: Options of the runner, as Beam takes them, in one string.

    Raises:
        InputError: There is no such runner, or not all that it needs.

    Example:
        >>> writer = BeamWriter(settings, runner="DirectRunner")
        >>> prepare_features(photos, source, folder="cache", writer=writer)
    """

    def __init__(
        self, settings: Settings, *, runner: str, options: str = ""
    ) -> None:
        """Checks the runner."""
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        try:
            create_runner(runner)
        except (ImportError, ValueError) as err:
            raise InputError(
                "`runner` must name a runner of Apache Beam that is installed. "
                f"Received: runner={runner} ({err})"
            ) from err
        if settings.image.weights not in ("imagenet", "random"):
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
    ) -> None:
        """Writes shards.

        Args:
            shards: The shards, all of one folder.
            source: How features are made here; the workers' recipe must be
                the same.
            skip_bad: Leave out photos that cannot be read.
            on_progress: Called at the end.

        Raises:
            InputError: Photos cannot be read, unless skipped (shards without
                them are written), or workers wrote elsewhere.
        """
        if not shards:
            return
        tasks = shards[0].path.parent.absolute() / "tasks"
        tasks.mkdir()
        names = [str(_write_task(tasks, shard)) for shard in shards]
        fill = FillShard(self._settings, source.settings, skip_bad=skip_bad)
        with beam.Pipeline(options=PipelineOptions(self._flags)) as pipeline:
            _ = (
                pipeline
                | "List shards" >> beam.Create(names)
                | "Spread" >> beam.Reshuffle()
                | "Fill shards" >> beam.ParDo(fill)
                | "Encode faults" >> beam.Map(json.dumps)
                | "Write faults"
                >> beam.io.WriteToText(
                    str(tasks / _FAULTS), shard_name_template=""
                )
            )
        lines = (tasks / _FAULTS).read_text(encoding="utf-8").splitlines()
        bad = sorted(json.loads(line) for line in lines)
        total = sum(len(shard.photos) for shard in shards)
        report_unreadable(bad, total, skip_bad=skip_bad)
        lost = [shard for shard in shards if not shard.path.exists()]
        if lost:
            raise InputError(
                f"{tasks.parent}: expected {len(shards)} shards written by the "
                f"workers, found {len(shards) - len(lost)}; workers must see "
                "this folder under the same path."
            )
        shutil.rmtree(tasks)
        if on_progress is not None:
            on_progress(total, total)


class FillShard(beam.DoFn):
    """Fills the shards that it is told of, with an image model of its own.

    Args:
        settings: What the image model is built from.
        expected: The settings of the features.
        skip_bad: Leave out photos that cannot be read.
    """

    def __init__(
        self, settings: Settings, expected: Mapping[str, Any], *, skip_bad: bool
    ) -> None:
        """Keeps what is sent to the workers: no model."""
        self._settings = settings
        self._expected = dict(expected)
        self._skip_bad = skip_bad
        self._source: FeatureSource | None = None

    def setup(self) -> None:
        """Builds the image model on a worker.

        Raises:
            InputError: It is not that of the process that started the work.
        """
        keras.utils.set_random_seed(self._settings.optimization.seed)
        encoder = build_image_tower(self._settings)
        self._source = feature_source(self._settings, encoder)
        if self._source.settings != self._expected:
            raise InputError(
                f"A worker makes features by {self._source.settings}, expected "
                f"{self._expected}; give all the same files and versions."
            )

    def process(self, task: str) -> Iterator[str]:
        """Fills one shard.

        Args:
            task: The file that tells of the shard.

        Yields:
            What is wrong with each photo that cannot be read.
        """
        if self._source is None:
            raise RuntimeError("`setup` must be called before `process`.")
        shard = _read_task(task)
        bad: list[str] = []
        rows = compute_features(
            shard.photos, self._source, skip_bad=self._skip_bad
        )
        fill_shard(shard, rows, self._source, bad, skip_bad=self._skip_bad)
        yield from bad


def _write_task(folder: Path, shard: Shard) -> Path:
    """Writes a shard's photos, too many in all to be part of a pipeline."""
    path = folder / f"{shard.path.stem}.json"
    photos = [
        [photo.image_id, str(photo.path.absolute())] for photo in shard.photos
    ]
    content = {"shard": str(shard.path.absolute()), "photos": photos}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _read_task(path: str) -> Shard:
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    photos = [
        CaptionedImage(id_, Path(name), ()) for id_, name in content["photos"]
    ]
    return Shard(Path(content["shard"]), photos)
