"""`bmt evaluate`: captions of images against captions by people."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bmt_keras.commands import inputs
from bmt_keras.commands.extras import require
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.commands.settings_options import with_settings
from bmt_keras.data.captions import (
    CaptionedImage,
    read_coco_captions,
    read_texts,
)
from bmt_keras.errors import InputError
from bmt_keras.progress import show_progress


@with_settings("decoding")
def evaluate(
    captions: inputs.Captions,
    images: inputs.Images,
    captioner: Annotated[Path, typer.Option(help="The captioner's folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    facts: Annotated[
        Path | None,
        typer.Option(help="Facts of generated pictures, for `truth`."),
    ] = None,
    train_captions: Annotated[
        Path | None,
        typer.Option(help="The training captions, for the share of `novel`."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Also write a page, report.html, into this folder."),
    ] = None,
    java_scores: Annotated[
        bool,
        typer.Option(
            "--java-scores",
            help="METEOR and SPICE too, where Java is there; SPICE downloads "
            "its models at its first use.",
        ),
    ] = False,
    passes_curve: Annotated[
        bool,
        typer.Option(
            help="Measure score and time by the number of passes (the report)."
        ),
    ] = True,
    retrieval: Annotated[
        int,
        typer.Option(
            min=0,
            help="Measure retrieval among the first N images; 0 leaves it out.",
        ),
    ] = 100,
    limit: inputs.Limit = None,
    skip_bad: inputs.SkipBad = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Caption images and score the captions.

    Decoding is by default as the captioner was saved.
    """
    require("pycocoevalcap", "matplotlib")
    if report is not None:
        require("jinja2")
    pairs = read_coco_captions(captions, images, limit=limit)
    is_true = None if facts is None else _truth_rule(facts, pairs)
    known = None if train_captions is None else read_texts(train_captions)
    load_tensorflow()
    from bmt_keras.captioner import Captioner
    from bmt_keras.captioner.files import read_good_images
    from bmt_keras.evaluation.model_metrics import evaluate_captioner

    model = Captioner.from_preset(captioner, **overrides)
    with show_progress("Reading images") as on_progress:
        good, features = read_good_images(
            model,
            pairs,
            skip_bad=skip_bad,
            on_progress=partial(on_progress, "all"),
        )
    evaluate_captioner(
        model,
        good,
        features,
        out=out,
        retrieval=retrieval,
        is_true=is_true,
        training_captions=known,
        java_scores=java_scores,
        report=report,
        passes_curve=passes_curve,
    )
    if report is not None:
        typer.echo(f"{report / 'report.html'}: the report")
    print_metrics(out)


def _truth_rule(
    facts: Path, images: Sequence[CaptionedImage]
) -> Callable[[int, str], bool]:
    from bmt_keras.sample import caption_is_true, read_facts

    scenes = read_facts(facts)
    missing = [p.image_id for p in images if p.image_id not in scenes]
    if missing:
        raise InputError(
            f"{facts}: expected facts of every image, found none of image "
            f"{missing[0]} ({len(missing)} are missing)."
        )
    return lambda image_id, text: caption_is_true(text, scenes[image_id])


def print_metrics(folder: Path) -> None:
    """Prints the scores in a folder's `metrics.json` as a table."""
    from rich.console import Console
    from rich.table import Table

    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    table = Table("metric", "value")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
