"""`bmt train`: from photos and captions to a captioner."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bmt_keras.commands import inputs
from bmt_keras.commands.precision import choose_matmul_precision
from bmt_keras.commands.prepare import prepare_in_own_process
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.commands.settings_options import with_settings
from bmt_keras.commands.workers import train_together
from bmt_keras.progress import show_progress

if TYPE_CHECKING:
    import tensorflow as tf

    from bmt_keras.captioner import Captioner
    from bmt_keras.data.captions import CaptionedImage
    from bmt_keras.settings import Settings
    from bmt_keras.training import TrainingData


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
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Share each batch among the GPUs of this machine (mirrored), "
            "the processes that TF_CONFIG lists (multi-worker), or the cores "
            "of a TPU (tpu)."
        ),
    ] = None,
    tpu_address: Annotated[
        str | None,
        typer.Option(
            help="Address or name of the TPU (--strategy tpu); by default that "
            "in TPU_NAME."
        ),
    ] = None,
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
        seed=settings.optimization.seed,
    )
    load_tensorflow(devices=strategy is None)
    prepare = partial(
        prepare_in_own_process,
        cache or out / "cache",
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
    with train_together(strategy, tpu_address=tpu_address) as together:
        _train(
            settings,
            photos,
            val_photos,
            out=out,
            cache=cache or out / "cache",
            start=start,
            skip_bad=skip_bad,
            prepare=prepare,
            strategy=together,
        )


def _train(
    settings: "Settings",
    photos: "Sequence[CaptionedImage]",
    val_photos: "Sequence[CaptionedImage]",
    *,
    out: Path,
    cache: Path,
    start: Path | None,
    skip_bad: bool,
    prepare: Callable[[], None],
    strategy: "tf.distribute.Strategy | None",
) -> None:
    import keras

    from bmt_keras import training
    from bmt_keras.captioner import Captioner
    from bmt_keras.models import build_image_tower

    training.check_run_folder(out, settings)
    if strategy is not None:
        training.check_replicas(settings, strategy.num_replicas_in_sync)
    chief = training.is_chief(strategy)
    choose_matmul_precision(settings.optimization.matmul_precision, tell=chief)
    first = Captioner.load(start) if start else None
    tokenizer = (
        first.tokenizer if first else training.make_tokenizer(settings, photos)
    )
    if not settings.image.trainable:
        with training.chief_first(strategy):
            prepare()
    keras.utils.set_random_seed(settings.optimization.seed)
    # A model that is trained along has replicas.
    trained_along = strategy if settings.image.trainable else None
    with trained_along.scope() if trained_along else nullcontext():
        image_tower = build_image_tower(settings)
    with (
        training.chief_first(strategy),
        show_progress("Reading photos") as on_progress,
    ):
        data = training.prepare_data(
            photos,
            val_photos,
            training.feature_source(settings, image_tower),
            cache=cache,
            skip_bad=skip_bad,
            on_progress=on_progress if chief else None,
        )
    captioner = training.train_captioner(
        data,
        settings,
        tokenizer=tokenizer,
        image_tower=image_tower,
        out=out,
        start=first.model if first else None,
        callbacks=[training.ModelSummary()] if chief else [],
        verbose=1 if sys.stdout.isatty() else 2,
        show_caching=partial(show_progress, "Running ALBERT"),
        strategy=strategy,
    )
    if chief:
        _write_results(out, captioner, data)
    training.wait_for_workers(strategy)


def _write_results(
    out: Path, captioner: "Captioner", data: "TrainingData"
) -> None:
    from bmt_keras.commands.evaluate import write_evaluation
    from bmt_keras.evaluation.plots import plot_history

    plot_history(out / "history.csv", out / "curves.png")
    rows = data.val_features.rows
    good = [photo for photo in data.val if photo.image_id in rows]
    write_evaluation(
        out,
        captioner,
        good,
        data.val_features.array[[rows[photo.image_id] for photo in good]],
        training_captions=[
            text for photo in data.train for text in photo.captions
        ],
    )
    typer.echo(f"{out / 'captioner'}: the captioner")
