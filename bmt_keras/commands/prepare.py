"""`bmt prepare`: decode or embed photos once, ahead of training."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bmt_keras.commands import inputs
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.commands.settings_options import to_arguments, with_settings
from bmt_keras.errors import InputError
from bmt_keras.parent import end_with_parent
from bmt_keras.progress import show_progress

if TYPE_CHECKING:
    from bmt_keras.data.features import FeatureWriter
    from bmt_keras.settings import Settings


@with_settings
def prepare(
    captions: inputs.Captions,
    images: inputs.Images,
    cache: Annotated[
        Path, typer.Option(help="Folder of the cache, for `bmt train --cache`.")
    ],
    preset: Annotated[str, typer.Option(help="Preset.")] = "sample",
    val_captions: inputs.ValCaptions = None,
    val_images: inputs.ValImages = None,
    val_share: inputs.ValShare = 0.2,
    limit: inputs.Limit = None,
    skip_bad: inputs.SkipBad = False,
    shard_size: Annotated[
        int,
        typer.Option(
            min=1, help="Photos of a file of the cache; a killed run loses one."
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
    parent: Annotated[
        int | None,
        typer.Option(help="End with this process.", hidden=True),
    ] = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Embed photos with the frozen image model and keep the result on disk.

    The same command goes on after a stop.
    """
    from bmt_keras.presets import resolve_settings

    if parent is not None:
        end_with_parent(parent)
    settings = resolve_settings(preset, overrides)
    train, val = inputs.read_both_sides(
        captions,
        images,
        val_captions=val_captions,
        val_images=val_images,
        val_share=val_share,
        limit=limit,
        seed=settings.optimization.seed,
    )
    load_tensorflow()
    import keras

    from bmt_keras.models import build_image_tower
    from bmt_keras.training import feature_source, prepare_data

    writer = _make_writer(settings, runner, runner_options)
    keras.utils.set_random_seed(settings.optimization.seed)
    source = feature_source(settings, build_image_tower(settings))
    with show_progress("Reading photos") as on_progress:
        data = prepare_data(
            train,
            val,
            source,
            cache=cache,
            skip_bad=skip_bad,
            shard_size=shard_size,
            writer=writer,
            on_progress=on_progress,
        )
    typer.echo(
        f"{cache}: {len(data.train_features.rows)} training and "
        f"{len(data.val_features.rows)} validation photos"
    )


def _make_writer(
    settings: "Settings", runner: str | None, options: str | None
) -> "FeatureWriter":
    from bmt_keras.data.features import write_features

    if runner is None:
        if options is not None:
            raise InputError(
                "`--runner-options` must be given with `--runner`. Received: "
                f"--runner-options={options}."
            )
        return write_features
    try:
        from bmt_keras.training.beam import BeamWriter
    except ModuleNotFoundError as err:
        if (err.name or "").split(".")[0] != "apache_beam":
            raise
        raise InputError(
            "`--runner` needs Apache Beam, which is not installed: "
            "pip install 'bmt-keras[beam]', in an environment of its own. "
            f"Received: --runner={runner}."
        ) from err
    return BeamWriter(settings, runner=runner, options=options or "")


def prepare_in_own_process(cache: Path, **options: Any) -> None:
    """Runs `bmt prepare` in a process whose end frees the image model's memory.

    It ends with this process, even where a signal ends this one.

    Args:
        cache: Folder of the cache; nothing is run where both sides are there.
        **options: The command's other options.

    Raises:
        InputError: The process was killed.
        SystemExit: It failed, and has said why.
    """
    if all((cache / side).is_dir() for side in ("train", "val")):
        return
    command = [sys.executable, "-m", "bmt_keras.commands", "prepare"]
    arguments = to_arguments({"cache": cache, "parent": os.getpid(), **options})
    code = subprocess.run([*command, *arguments]).returncode
    if code < 0:
        raise InputError(
            f"The process that embeds the photos was ended by signal {-code}; "
            "the same command starts it again."
        )
    if code > 0:
        raise SystemExit(code)
