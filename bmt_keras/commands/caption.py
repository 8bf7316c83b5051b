"""`bmt caption`: captions of images, without a server."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bmt_keras.commands import options, startup
from bmt_keras.errors import InputError
from bmt_keras.progress import show_progress

if TYPE_CHECKING:
    from bmt_keras.captioner import Caption, Captioner


@options.with_settings("decoding")
def caption(
    images: Annotated[
        list[Path], typer.Argument(help="Image files, or folders of them.")
    ],
    captioner: options.Captioner = Path("runs/sample/captioner"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write into this .jsonl, .csv or .json (COCO's results); the "
            "same command goes on after a stop."
        ),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Print each token's confidence too."),
    ] = False,
    grid: Annotated[
        Path | None, typer.Option(help="Also draw the images into this PNG.")
    ] = None,
    length: Annotated[
        str | None,
        typer.Option(help="Tokens of a caption: 8, or 6-9 for a range."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Complete this: [MASK] stands for a token, … for some."
        ),
    ] = None,
    keyword: Annotated[
        list[str] | None,
        typer.Option(help="A word that must stand in it; may be repeated."),
    ] = None,
    num_captions: Annotated[
        int, typer.Option(min=1, help="Different captions of each image.")
    ] = 1,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0, help="0 writes the likeliest tokens, more samples."
        ),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            max=1.0,
            help="Sample among the likeliest tokens of this probability.",
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    matmul_precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(
            help="bfloat16 is faster on a CPU with units for it; captions may "
            "differ in a word."
        ),
    ] = "float32",
    *,
    overrides: dict[str, Any],
) -> None:
    """Write the captions of images: a line each, or many into a file.

    Decoding is by default as the captioner was saved.
    """
    controls: dict[str, Any] = {
        "length": _parse_length(length),
        "keywords": keyword,
        "template": template,
        "num_captions": num_captions,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    if num_captions > 1 and (out is not None or grid is not None):
        raise InputError(
            "`--num-captions` prints captions; --out and --grid take one per "
            f"image. Received: --num-captions={num_captions}."
        )
    if grid is not None:
        startup.require("matplotlib")
    # From here on it takes seconds: what fails soon has failed.
    startup.load_tensorflow()
    from bmt_keras.captioner import Captioner
    from bmt_keras.captioner.files import find_images
    from bmt_keras.models import set_matmul_precision

    paths = find_images(images)
    set_matmul_precision(matmul_precision)
    model = Captioner.from_preset(captioner, **overrides)
    if out is not None:
        _write_file(model, paths, out, controls)
        return
    written = model.caption(paths, **controls)
    for path, captions in zip(paths, written, strict=True):
        for each in captions if num_captions > 1 else [captions]:
            line = f"{path}\t{each.text}" if len(paths) > 1 else each.text
            if scores:
                line += "\t" + _describe_scores(each)
            typer.echo(line)
    if grid is not None:
        from bmt_keras.evaluation.plots import draw_caption_grid

        draw_caption_grid(paths, [each.text for each in written], grid)


def _write_file(
    captioner: "Captioner",
    paths: list[Path],
    out: Path,
    controls: dict[str, Any],
) -> None:
    from bmt_keras.captioner.files import caption_to_file

    with show_progress("Captioning images") as on_progress:
        bad = caption_to_file(
            captioner,
            paths,
            out,
            on_progress=partial(on_progress, "all"),
            **controls,
        )
    for image in bad:
        typer.echo(f"bmt: cannot be read: {image}", err=True)
    typer.echo(f"{out}: {len(paths) - len(bad)} captions")


def _parse_length(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    shortest, _, longest = text.partition("-")
    try:
        return (int(shortest), int(longest)) if longest else int(shortest)
    except ValueError as error:
        raise InputError(
            "`--length` must be a number, or two with a hyphen such as 6-9. "
            f"Received: {text!r}."
        ) from error


def _describe_scores(caption: "Caption") -> str:
    from bmt_keras.data.tokenizer import WORD_START

    pairs = zip(caption.tokens, caption.confidences, strict=True)
    return " ".join(f"{token.lstrip(WORD_START)}={p:.2f}" for token, p in pairs)
