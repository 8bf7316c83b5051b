"""`bmt pretrain`: the text side learns from captions without photos."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bmt_keras.commands.precision import choose_matmul_precision
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.commands.settings_options import with_settings
from bmt_keras.errors import InputError


@with_settings
def pretrain(
    text: Annotated[
        Path, typer.Option(help="Captions, one a line; .txt or .txt.gz.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    preset: Annotated[
        str, typer.Option(help="The preset of the training that follows.")
    ] = "small",
    captions: Annotated[
        Path | None,
        typer.Option(
            help="Captions in COCO's format (JSON) of the training that "
            "follows, to learn from these, too."
        ),
    ] = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Pretrain on text alone; `bmt train --start OUT/captioner` follows."""
    from bmt_keras.data.coco import Photo, read_texts
    from bmt_keras.presets import resolve_settings

    # The image model takes no part: its weights are those of `bmt train`.
    overrides["image_weights"] = overrides["image_weights"] or "random"
    settings = resolve_settings(preset, overrides)
    if settings.fusion != "cross_attention":
        raise InputError(
            "`fusion` must be 'cross_attention' to learn without photos. "
            f"Received: fusion={settings.fusion}."
        )
    settings = dataclasses.replace(
        settings,
        group_size=settings.batch_size,
        concept_units=0,
        consensus=0.0,
        objective="tokens",
        cider_epochs=0,
    )
    load_tensorflow()
    import keras

    from bmt_keras import training
    from bmt_keras.models import build_image_encoder

    training.check_run_folder(out, settings)
    choose_matmul_precision(settings.matmul_precision)
    texts = training.read_caption_texts(text)
    if captions is not None:
        texts += read_texts(captions)
    tokenizer = training.make_tokenizer(
        settings, [Photo(0, Path(), tuple(texts))]
    )
    keras.utils.set_random_seed(settings.seed)
    image_encoder = build_image_encoder(settings)
    shape = image_encoder.output.shape[1:]
    if settings.train_image_model:
        shape = image_encoder.input.shape[1:]
    training.train_captioner(
        training.text_data(texts, shape, seed=settings.seed),
        settings,
        tokenizer=tokenizer,
        image_encoder=image_encoder,
        out=out,
        verbose=1 if sys.stdout.isatty() else 2,
    )
    typer.echo(f"{out / 'captioner'}: for `bmt train --start`")
