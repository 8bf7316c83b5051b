"""`bmt prepare`: decode or embed photos once, ahead of training."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bmt_keras.commands import inputs
from bmt_keras.commands.progress import show_progress
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.commands.settings_options import with_settings


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
    *,
    overrides: dict[str, Any],
) -> None:
    """Embed photos with the frozen image model and keep the result on disk."""
    from bmt_keras.presets import resolve_settings

    settings = resolve_settings(preset, overrides)
    train, val = inputs.read_both_sides(
        captions,
        images,
        val_captions=val_captions,
        val_images=val_images,
        val_share=val_share,
        limit=limit,
        seed=settings.seed,
    )
    load_tensorflow()
    import keras

    from bmt_keras.models import build_image_encoder
    from bmt_keras.training import feature_source, prepare_data

    keras.utils.set_random_seed(settings.seed)
    source = feature_source(settings, build_image_encoder(settings))
    with show_progress("Reading photos") as on_progress:
        data = prepare_data(
            train,
            val,
            source,
            cache=cache,
            skip_bad=skip_bad,
            on_progress=on_progress,
        )
    typer.echo(
        f"{cache}: {len(data.train_features.rows)} training and "
        f"{len(data.val_features.rows)} validation photos"
    )
