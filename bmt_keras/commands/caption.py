"""`bmt caption`: captions of photos, without a server."""

import math
from pathlib import Path
from typing import Annotated

import typer

from bmt_keras.commands.pictures import draw_photos
from bmt_keras.commands.quiet import load_tensorflow

_CAPTIONER = Path("runs/sample/captioner")


def caption(
    images: Annotated[list[Path], typer.Argument(help="Photo files.")],
    captioner: Annotated[
        Path, typer.Option(help="The captioner's folder.")
    ] = _CAPTIONER,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Print each token's probability too."),
    ] = False,
    grid: Annotated[
        Path | None, typer.Option(help="Also draw the photos into this PNG.")
    ] = None,
) -> None:
    """Write the captions of photos, a line each."""
    load_tensorflow()
    from bmt_keras.captioner import Captioner

    written = Captioner.load(captioner).caption(images)
    for path, each in zip(images, written, strict=True):
        line = each.text if len(images) == 1 else f"{path}\t{each.text}"
        if scores:
            line += "\t" + _describe_scores(each.tokens, each.token_scores)
        typer.echo(line)
    if grid is not None:
        draw_photos(grid, images, [each.text for each in written])


def _describe_scores(
    tokens: tuple[str, ...], token_scores: tuple[float, ...]
) -> str:
    from bmt_keras.data.tokenizer import WORD_START

    return " ".join(
        f"{token.lstrip(WORD_START)}={math.exp(score):.2f}"
        for token, score in zip(tokens, token_scores, strict=True)
    )
