"""`bmt pretrain`: the text side learns from captions without photos."""

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
    from bmt_keras.data.captions import CaptionedImage, read_texts
    from bmt_keras.presets import resolve_settings

    # The image model takes no part: its weights are those of `bmt train`.
    overrides["image_weights"] = overrides["image_weights"] or "random"
    settings = resolve_settings(preset, overrides)
    if settings.fusion.kind != "cross_attention":
        raise InputError(
            "`fusion` must be 'cross_attention' to learn without photos. "
            f"Received: fusion={settings.fusion.kind}."
        )
    settings = settings.replace(
        group_size=settings.batches.batch_size,
        concept_dim=0,
    )
    load_tensorflow()
    import keras

    from bmt_keras import training
    from bmt_keras.models import build_image_tower

    training.check_run_folder(out, settings)
    choose_matmul_precision(settings.optimization.matmul_precision)
    texts = training.read_caption_texts(text)
    if captions is not None:
        texts += read_texts(captions)
    tokenizer = training.make_tokenizer(
        settings, [CaptionedImage(0, Path(), tuple(texts))]
    )
    keras.utils.set_random_seed(settings.optimization.seed)
    image_tower = build_image_tower(settings)
    shape = image_tower.output.shape[1:]
    if settings.image.trainable:
        shape = image_tower.input.shape[1:]
    training.train_captioner(
        training.text_data(texts, shape, seed=settings.optimization.seed),
        settings,
        tokenizer=tokenizer,
        image_tower=image_tower,
        out=out,
        verbose=1 if sys.stdout.isatty() else 2,
    )
    typer.echo(f"{out / 'captioner'}: for `bmt train --start`")
