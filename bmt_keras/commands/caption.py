"""`bmt caption`: captions of photos, without a server."""

import math
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bmt_keras.commands.pictures import draw_photos
from bmt_keras.commands.progress import show_progress
from bmt_keras.commands.quiet import load_tensorflow

_CAPTIONER = Path("runs/sample/captioner")


def caption(
    images: Annotated[
        list[Path], typer.Argument(help="Photo files, or folders of them.")
    ],
    captioner: Annotated[
        Path, typer.Option(help="The captioner's folder.")
    ] = _CAPTIONER,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write into this .jsonl, .csv or .json (COCO's results); the "
            "same command goes on after a stop."
        ),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Print each token's probability too."),
    ] = False,
    grid: Annotated[
        Path | None, typer.Option(help="Also draw the photos into this PNG.")
    ] = None,
) -> None:
    """Write the captions of photos: a line each, or many into a file."""
    load_tensorflow()
    from bmt_keras.batch_captions import caption_to_file, find_photos
    from bmt_keras.captioner import Captioner

    photos = find_photos(images)
    if out is not None:
        with show_progress("Captioning photos") as on_progress:
            bad = caption_to_file(
                Captioner.load(captioner),
                photos,
                out,
                on_progress=partial(on_progress, "all"),
            )
        for photo in bad:
            typer.echo(f"bmt: cannot be read: {photo}", err=True)
        typer.echo(f"{out}: {len(photos) - len(bad)} captions")
        return
    written = Captioner.load(captioner).caption(photos)
    for path, each in zip(photos, written, strict=True):
        line = each.text if len(photos) == 1 else f"{path}\t{each.text}"
        if scores:
            line += "\t" + _describe_scores(each.tokens, each.token_scores)
        typer.echo(line)
    if grid is not None:
        draw_photos(grid, photos, [each.text for each in written])


def _describe_scores(
    tokens: tuple[str, ...], token_scores: tuple[float, ...]
) -> str:
    from bmt_keras.data.tokenizer import WORD_START

    return " ".join(
        f"{token.lstrip(WORD_START)}={math.exp(score):.2f}"
        for token, score in zip(tokens, token_scores, strict=True)
    )
