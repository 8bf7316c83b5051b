"""`bmt prepare`: decode or embed images once, ahead of training."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bmt_keras.commands import options, startup
from bmt_keras.data.captions import read_sides
from bmt_keras.presets import resolve_settings
from bmt_keras.progress import show_progress


@options.with_settings("image", "seed")
def prepare(
    sides: dict[str, Any],
    cache: Path,
    preset: options.Preset = "sample",
    shard_size: Annotated[int, typer.Option(min=1)] = 1024,
    runner: str | None = None,
    runner_options: str = "",
    *,
    overrides: dict[str, Any],
) -> None:
    """Embed images with the frozen image tower and keep the result on disk.

    The same command goes on after a stop.

    Options:
        cache: Folder of the cache, for `bmt train --cache`.
        shard_size: Images per file of the cache; a killed run loses one.
        runner: Embed on this runner of Apache Beam (DirectRunner,
            DataflowRunner, FlinkRunner, SparkRunner), not in this process.
        runner_options: The runner's options, in one string (--runner).
    """
    settings = resolve_settings(preset, overrides)
    if runner is not None:
        startup.require("apache_beam")
    train, val = read_sides(**sides, seed=settings.optimization.seed)
    startup.load_tensorflow()
    # Inside, for `bmt --help` loads no TensorFlow.
    from bmt_keras.training.data import prepare_data

    skip_bad = sides["skip_bad"]
    files: dict[str, Any] = {"skip_bad": skip_bad, "shard_size": shard_size}
    # After the captions are read: a bad file needs no runner.
    if runner is not None:
        # Apache Beam is an extra.
        from bmt_keras.training.beam import BeamWriter

        files["writer"] = BeamWriter(
            settings, runner=runner, options=runner_options
        )
    with show_progress("Reading images") as on_progress:
        data = prepare_data(
            settings, train, val, cache=cache, on_progress=on_progress, **files
        )
    typer.echo(
        f"{cache}: {len(data.train_features.rows)} training and "
        f"{len(data.val_features.rows)} validation images"
    )
