"""`bmt train`: from photos and captions to a captioner."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bmt_keras.commands import inputs
from bmt_keras.commands.prepare import prepare_in_own_process
from bmt_keras.commands.progress import show_progress
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.commands.settings_options import with_settings


@with_settings
def train(
    captions: inputs.Captions,
    images: inputs.Images,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    preset: Annotated[
        str,
        typer.Option(help="sample, small, notebook, notebook-small or coco."),
    ] = "sample",
    val_captions: inputs.ValCaptions = None,
    val_images: inputs.ValImages = None,
    val_share: inputs.ValShare = 0.2,
    limit: inputs.Limit = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the photos' cache; by default in --out."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Begin with the weights and vocabulary of this captioner, or "
            "of what `bmt pretrain` wrote."
        ),
    ] = None,
    skip_bad: inputs.SkipBad = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Train a captioner; the same command goes on after a stop."""
    from bmt_keras.presets import resolve_settings

    settings = resolve_settings(preset, overrides)
    photos, val_photos = inputs.read_both_sides(
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

    from bmt_keras import training
    from bmt_keras.captioner import Captioner
    from bmt_keras.commands.evaluate import write_evaluation
    from bmt_keras.models import build_image_encoder
    from bmt_keras.plots import plot_history

    cache = cache or out / "cache"
    training.check_run_folder(out, settings)
    training.set_matmul_precision(settings.matmul_precision)
    first = Captioner.load(start) if start else None
    tokenizer = (
        first.tokenizer if first else training.make_tokenizer(settings, photos)
    )
    if not settings.train_image_model:
        prepare_in_own_process(
            cache,
            captions=captions,
            images=images,
            preset=preset,
            val_captions=val_captions,
            val_images=val_images,
            val_share=val_share,
            limit=limit,
            skip_bad=skip_bad or None,
            **overrides,
        )
    keras.utils.set_random_seed(settings.seed)
    image_encoder = build_image_encoder(settings)
    with show_progress("Reading photos") as on_progress:
        data = training.prepare_data(
            photos,
            val_photos,
            training.feature_source(settings, image_encoder),
            cache=cache,
            skip_bad=skip_bad,
            on_progress=on_progress,
        )
    captioner = training.train_in_phases(
        data,
        settings,
        tokenizer=tokenizer,
        image_encoder=image_encoder,
        out=out,
        start=first.model if first else None,
        callbacks=[training.ModelSummary()],
        verbose=1 if sys.stdout.isatty() else 2,
        show_caching=partial(show_progress, "Running ALBERT"),
    )
    plot_history(out / "history.csv", out / "curves.png")
    rows = data.val_features.rows
    good = [photo for photo in val_photos if photo.image_id in rows]
    write_evaluation(
        out,
        captioner,
        good,
        data.val_features.array[[rows[photo.image_id] for photo in good]],
        training_captions=[text for photo in photos for text in photo.captions],
    )
    typer.echo(f"{out / 'captioner'}: the captioner")
