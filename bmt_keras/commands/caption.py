"""`bmt caption`: captions of images, without a server."""

import hashlib
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bmt_keras.commands import options, startup
from bmt_keras.data.caption_files import Journal, check_out
from bmt_keras.errors import InputError
from bmt_keras.image_files import find_images, report_unreadable, show_name
from bmt_keras.progress import show_progress

if TYPE_CHECKING:
    from bmt_keras.captioner import Caption, Captioner


@options.with_settings("decoding")
def caption(
    images: Annotated[list[Path], typer.Argument()],
    captioner: options.Captioner = "runs/sample/captioner",
    out: options.Out = None,
    scores: bool = False,
    grid: Path | None = None,
    length: str | None = None,
    template: str | None = None,
    keyword: list[str] | None = None,
    num_captions: Annotated[int, typer.Option(min=1)] = 1,
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.0,
    top_p: Annotated[float, typer.Option(max=1.0)] = 1.0,
    seed: int = 0,
    matmul_precision: Literal["float32", "bfloat16"] = "float32",
    *,
    overrides: dict[str, Any],
) -> None:
    """Write the captions of images: a line each, or many into a file.

    Decoding is by default as the captioner was saved.

    Options:
        images: Image files, or folders of them.
        scores: Print each token's confidence too.
        grid: Also draw the images into this PNG.
        length: Tokens of a caption: 8, 6-9, 6- or -9.
        template: Complete this: [MASK] stands for a token, … for some.
        keyword: A word that must stand in it; may be repeated.
        num_captions: Different captions of each image.
        temperature: 0 writes the likeliest tokens, more samples.
        top_p: Sample among the likeliest tokens of this probability.
        seed: Seed of the samples.
        matmul_precision: bfloat16 is faster on a CPU with units for it;
            captions may differ in a word.
    """
    controls: dict[str, Any] = {
        "length": parse_length(length),
        "keywords": keyword,
        "template": template,
        "num_captions": num_captions,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    if grid is not None:
        startup.require("matplotlib")
        if grid.suffix != ".png":
            raise InputError(f"{grid}: expected a file name that ends in .png.")
    paths = find_images(images)
    source = {"matmul_precision": matmul_precision, **overrides}
    if out is not None:
        check_out(out, paths)
        source |= _identify(captioner)
        Journal(out, source | controls)
    elif not any(path.exists() for path in paths):
        raise InputError(f"{paths[0]}: expected an image, found none.")
    # From here on it takes seconds: what fails soon has failed.
    startup.load_tensorflow()
    from bmt_keras.captioner import Captioner
    from bmt_keras.models import set_matmul_precision

    set_matmul_precision(matmul_precision)
    model = Captioner.from_preset(captioner, **overrides)
    if out is not None:
        _write_file(model, paths, out, source, controls)
        return
    written = model.caption(paths, **controls, on_error="skip")
    good = [pair for pair in zip(paths, written, strict=True) if pair[1]]
    for path, captions in good:
        for each in captions if num_captions > 1 else [captions]:
            name = f"{show_name(path)}\t" if len(paths) > 1 else ""
            line = name + each.text
            if scores:
                line += "\t" + _describe_scores(each)
            typer.echo(line)
    if grid is not None and good:
        from bmt_keras.evaluation.plots import draw_caption_grid

        draw_caption_grid([x for x, _ in good], [y.text for _, y in good], grid)
    if len(good) < len(paths):
        raise typer.Exit(1)


def _write_file(
    captioner: "Captioner",
    paths: list[Path],
    out: Path,
    source: dict[str, Any],
    controls: dict[str, Any],
) -> None:
    from bmt_keras.captioner.files import caption_to_file

    with show_progress("Captioning images") as on_progress:
        bad = caption_to_file(
            captioner,
            paths,
            out,
            source=source,
            on_progress=partial(on_progress, "all"),
            **controls,
        )
    report_unreadable(bad, len(paths), skip_bad=True, beside=out)
    typer.echo(f"{out}: {len(paths) - len(bad)} captions")
    if bad:
        raise typer.Exit(1)


def parse_length(text: str | None) -> int | tuple[int, int | None] | None:
    """Reads `--length`: 8, 6-9, 6- (six or more) or -9 (nine at most)."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d*)(-?)(\d*)", text)
    least, hyphen, most = match.groups() if match else ("", "", "")
    shortest, longest = int(least or 1), int(most) if most else None
    upper = shortest if longest is None else longest
    if not least + most or not 1 <= shortest <= upper:
        raise InputError(
            "`--length` must be a number of tokens such as 8, or a range such "
            "as 6-9, 6- (six or more) or -9 (nine at most). Received: "
            f"{text!r}."
        )
    return (shortest, longest) if hyphen else shortest


def _identify(captioner: str) -> dict[str, str]:
    """Names a captioner, and what tells it from a later one at its place."""
    if captioner.startswith("hf://"):
        startup.load_tensorflow()
        from bmt_keras.models.checkpoint_files import find_folder

        # The hub's client names a folder after its commit.
        commit = find_folder(captioner, ["model.keras"]).name
        return {"captioner": captioner, "captioner's hash": commit}
    folder, digest = Path(captioner), hashlib.blake2b(digest_size=8)
    for path in sorted(each for each in folder.iterdir() if each.is_file()):
        digest.update(os.fsencode(path.name) + path.read_bytes())
    place = str(folder.resolve())
    return {"captioner": place, "captioner's hash": digest.hexdigest()}


def _describe_scores(caption: "Caption") -> str:
    from bmt_keras.data.tokenizer import WORD_START

    pairs = zip(caption.tokens, caption.confidences, strict=True)
    return " ".join(f"{token.lstrip(WORD_START)}={p:.2f}" for token, p in pairs)
