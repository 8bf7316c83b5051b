"""`bmt caption`: captions of photos, without a server."""

from pathlib import Path
from typing import Annotated

import typer

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
        _draw(grid, images, [each.text for each in written])


def _describe_scores(
    tokens: tuple[str, ...], token_scores: tuple[float, ...]
) -> str:
    import math

    return " ".join(
        f"{token.lstrip(chr(0x2581))}={math.exp(score):.2f}"
        for token, score in zip(tokens, token_scores, strict=True)
    )


def _draw(path: Path, images: list[Path], texts: list[str]) -> None:
    import tensorflow as tf

    from bmt_keras.data.images import decode_rgb
    from bmt_keras.plots import draw_caption_grid

    pixels = [decode_rgb(tf.io.read_file(str(p))).numpy() for p in images]
    draw_caption_grid(pixels, texts, path, columns=3)
