"""`bmt caption`: captions of photos, without a server."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bmt_keras.commands import inputs
from bmt_keras.commands.pictures import draw_photos
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.errors import InputError
from bmt_keras.progress import show_progress

MATMUL_PRECISIONS = ("float32", "bfloat16")

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
        typer.Option("--scores", help="Print each token's confidence too."),
    ] = False,
    grid: Annotated[
        Path | None, typer.Option(help="Also draw the photos into this PNG.")
    ] = None,
    passes: Annotated[
        int | None, typer.Option(min=1, help="Passes; by default the model's.")
    ] = None,
    length: Annotated[
        str | None,
        typer.Option(help="Tokens of a caption: 8, or 6-9 for a range."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Complete this: [MASK] stands for a word, … for some."
        ),
    ] = None,
    keyword: Annotated[
        list[str] | None,
        typer.Option(help="A word that must stand in it; may be repeated."),
    ] = None,
    num_captions: Annotated[
        int, typer.Option(min=1, help="Different captions of each photo.")
    ] = 1,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="0 writes the likeliest words, more draws."),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            max=1.0,
            help="Draw among the likeliest words of this probability.",
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    mbr_samples: inputs.MbrSamples = None,
    rerank_top: inputs.RerankTop = None,
    matmul_precision: Annotated[
        str,
        typer.Option(
            help="Products of matrices and convolutions on a CPU: float32, "
            "bfloat16, or auto for bfloat16 where it is faster; captions may "
            "differ in a word."
        ),
    ] = "float32",
) -> None:
    """Write the captions of photos: a line each, or many into a file."""
    controls: dict[str, Any] = {
        "passes": passes,
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
            "`--num-captions` prints captions; --out and --grid take one of "
            f"each photo. Received: --num-captions={num_captions}."
        )
    if matmul_precision not in MATMUL_PRECISIONS:
        raise InputError(
            "`--matmul-precision` must be one of "
            f"{', '.join(MATMUL_PRECISIONS)}. Received: {matmul_precision}."
        )
    load_tensorflow()
    from bmt_keras.batch_captions import caption_to_file, find_photos
    from bmt_keras.captioner import Captioner
    from bmt_keras.models import set_matmul_precision

    photos = find_photos(images)
    set_matmul_precision(matmul_precision)
    model = Captioner.load(
        captioner, mbr_samples=mbr_samples, rerank_top=rerank_top
    )
    if out is not None:
        with show_progress("Captioning photos") as on_progress:
            bad = caption_to_file(
                model,
                photos,
                out,
                on_progress=partial(on_progress, "all"),
                controls=controls,
            )
        for photo in bad:
            typer.echo(f"bmt: cannot be read: {photo}", err=True)
        typer.echo(f"{out}: {len(photos) - len(bad)} captions")
        return
    written = model.caption(photos, **controls)
    for i, each in enumerate(written):
        line = each.text
        if len(photos) > 1:
            line = f"{photos[i // num_captions]}\t{line}"
        if scores:
            line += "\t" + _describe_scores(each.tokens, each.confidences)
        typer.echo(line)
    if grid is not None:
        draw_photos(grid, photos, [each.text for each in written])


def _parse_length(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    shortest, _, longest = text.partition("-")
    try:
        return (int(shortest), int(longest)) if longest else int(shortest)
    except ValueError as err:
        raise InputError(
            "`--length` must be a number, or two with a hyphen such as 6-9. "
            f"Received: {text!r}."
        ) from err


def _describe_scores(
    tokens: tuple[str, ...], confidences: tuple[float, ...]
) -> str:
    from bmt_keras.data.tokenizer import WORD_START

    return " ".join(
        f"{token.lstrip(WORD_START)}={confidence:.2f}"
        for token, confidence in zip(tokens, confidences, strict=True)
    )
