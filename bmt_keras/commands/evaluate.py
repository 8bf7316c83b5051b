"""`bmt evaluate`: captions of images against captions by people."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import typer

from bmt_keras.commands import options, startup
from bmt_keras.data.captions import read_captions, read_texts
from bmt_keras.progress import show_progress


@options.with_settings("decoding")
def evaluate(
    captions: options.Captions,
    images: options.Images,
    captioner: options.Captioner,
    out: Path,
    facts: Path | None = None,
    train_captions: Path | None = None,
    report: Path | None = None,
    java_scores: options.JavaScores = False,
    split: options.Split = None,
    limit: options.Limit = None,
    skip_bad: options.SkipBad = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Caption images and score the captions.

    Decoding is by default as the captioner was saved.

    Options:
        out: Folder of the results.
        facts: Facts of generated pictures, for `truth`.
        train_captions: The training captions, for the share of `novel`.
        report: Also write a page, report.html, into this folder.
    """
    startup.require("pycocoevalcap", "matplotlib")
    if report is not None:
        startup.require("jinja2")
    pairs = read_captions(
        captions, images, split=split, limit=limit, skip_bad=skip_bad
    )
    is_true = None
    if facts is not None:
        from bmt_keras.sample import read_truth

        is_true = read_truth(facts, [each.image_id for each in pairs])
    known = None
    if train_captions is not None:
        known = read_texts(train_captions, skip_bad=skip_bad)
    startup.load_tensorflow()
    from bmt_keras.captioner import Captioner
    from bmt_keras.captioner.files import read_good_images
    from bmt_keras.evaluation.model_metrics import evaluate_captioner

    model = Captioner.from_preset(captioner, **overrides)
    with show_progress("Reading images") as on_progress:
        good, features = read_good_images(
            model,
            pairs,
            skip_bad=skip_bad,
            beside=out / "evaluation",
            on_progress=partial(on_progress, "all"),
        )
    evaluate_captioner(
        model,
        good,
        features,
        out=out,
        retrieval=100,
        is_true=is_true,
        training_captions=known,
        java_scores=java_scores,
        report=report,
    )
    if report is not None:
        typer.echo(f"{report / 'report.html'}: the report")
    print_metrics(out)


def print_metrics(folder: Path) -> None:
    """Prints the scores in a folder's `metrics.json` as a table."""
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    print_table(json.loads(text))


def print_table(metrics: dict[str, float]) -> None:
    """Prints scores by name."""
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
