"""`bmt prepare`: decode or embed images once, ahead of training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bmt_keras.commands import inputs
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.commands.settings_options import with_settings
from bmt_keras.errors import InputError
from bmt_keras.presets import resolve_settings
from bmt_keras.progress import show_progress

if TYPE_CHECKING:
    from bmt_keras.data.features import FeatureWriter
    from bmt_keras.settings import Settings


@with_settings("image", "seed")
def prepare(
    captions: inputs.Captions,
    images: inputs.Images,
    cache: Annotated[
        Path, typer.Option(help="Folder of the cache, for `bmt train --cache`.")
    ],
    preset: inputs.Preset = "sample",
    val_captions: inputs.ValCaptions = None,
    val_images: inputs.ValImages = None,
    val_share: inputs.ValShare = 0.2,
    limit: inputs.Limit = None,
    skip_bad: inputs.SkipBad = False,
    shard_size: Annotated[
        int,
        typer.Option(
            min=1, help="Images per file of the cache; a killed run loses one."
        ),
    ] = 1024,
    runner: Annotated[
        str | None,
        typer.Option(
            help="Embed on this runner of Apache Beam (DirectRunner, "
            "DataflowRunner, FlinkRunner, SparkRunner), not in this process."
        ),
    ] = None,
    runner_options: Annotated[
        str | None,
        typer.Option(help="The runner's options, in one string (--runner)."),
    ] = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Embed images with the frozen image tower and keep the result on disk.

    The same command goes on after a stop.
    """
    settings = resolve_settings(preset, overrides)
    load_tensorflow()
    # Inside, for `bmt --help` loads no TensorFlow.
    from bmt_keras.training.data import prepare_data, read_sides

    train, val = read_sides(
        captions,
        images,
        val_captions=val_captions,
        val_images=val_images,
        val_share=val_share,
        limit=limit,
        seed=settings.optimization.seed,
    )
    # After the captions are read: a bad file needs no runner.
    writer = _make_writer(settings, runner, runner_options)
    with show_progress("Reading images") as on_progress:
        data = prepare_data(
            settings,
            train,
            val,
            cache=cache,
            skip_bad=skip_bad,
            shard_size=shard_size,
            writer=writer,
            on_progress=on_progress,
        )
    typer.echo(
        f"{cache}: {len(data.train_features.rows)} training and "
        f"{len(data.val_features.rows)} validation images"
    )


def _make_writer(
    settings: "Settings", runner: str | None, options: str | None
) -> "FeatureWriter":
    if runner is None:
        from bmt_keras.data.features import write_features

        if options is not None:
            raise InputError(
                "`--runner-options` must be given with `--runner`. Received: "
                f"--runner-options={options}."
            )
        return write_features
    # Apache Beam is an extra.
    from bmt_keras.training.beam import BeamWriter

    return BeamWriter(settings, runner=runner, options=options or "")
