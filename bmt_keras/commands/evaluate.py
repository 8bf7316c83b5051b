"""`bmt evaluate`: captions of photos against captions by people."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bmt_keras.commands import inputs
from bmt_keras.commands.pictures import draw_photos
from bmt_keras.commands.progress import show_progress
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.data.captions import (
    CaptionedImage,
    read_coco_captions,
    read_texts,
)
from bmt_keras.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from bmt_keras.captioner import Caption, Captioner
    from bmt_keras.report import CaptionedPhoto

_PICTURES = 12  # in the grid


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
            help="Measure retrieval among the first N photos; 0 leaves it out.",
        ),
    ] = 100,
    mbr_samples: inputs.MbrSamples = None,
    rerank_top: inputs.RerankTop = None,
    limit: inputs.Limit = None,
    skip_bad: inputs.SkipBad = False,
) -> None:
    """Caption photos and score the captions."""
    photos = read_coco_captions(captions, images, limit=limit)
    is_true = None if facts is None else _truth_rule(facts, photos)
    known = None if train_captions is None else read_texts(train_captions)
    load_tensorflow()
    from bmt_keras.captioner import Captioner

    model = Captioner.load(
        captioner, mbr_samples=mbr_samples, rerank_top=rerank_top
    )
    photos, features = _read_features(model, photos, skip_bad)
    write_evaluation(
        out,
        model,
        photos,
        features,
        passes_curve=passes_curve and report is not None,
        retrieval=retrieval,
        is_true=is_true,
        training_captions=known,
        java_scores=java_scores,
        report=report,
    )


def write_evaluation(
    out: Path,
    captioner: "Captioner",
    photos: Sequence[CaptionedImage],
    features: "np.ndarray",
    *,
    passes_curve: bool = False,
    retrieval: int = 0,
    is_true: Callable[[int, str], bool] | None = None,
    training_captions: Sequence[str] | None = None,
    java_scores: bool = False,
    report: Path | None = None,
) -> None:
    """Writes predictions, scores and a grid of pictures; prints the scores.

    Args:
        out: Folder of `predictions.json`, `metrics.json` and `grid.png`.
        captioner: Writes the captions.
        photos: Photos with captions by people.
        features: (photos, ...), as `Captioner.features` gives them.
        passes_curve: Whether score and time are measured by passes.
        retrieval: Among how many photos recall is measured; 0 for none.
        is_true: Rule of a caption's truth, where there is one.
        training_captions: What the captioner was trained on, if known.
        java_scores: Whether METEOR and SPICE are computed, where Java is.
        report: Folder of `report.html`; None for no page.
    """
    from bmt_keras import captioner_figures, evaluation

    ids = [photo.image_id for photo in photos]
    written = captioner.caption_features(features)
    captions = dict(zip(ids, written, strict=True))
    texts = {id_: caption.text for id_, caption in captions.items()}
    references = {photo.image_id: photo.captions for photo in photos}
    masked, bins = captioner_figures.measure_masked_tokens(
        captioner_figures.guess_masked_tokens(
            captioner, features, captioner_figures.one_caption_each(photos)
        ),
        captioner.calibration,
    )
    metrics = {
        **evaluation.evaluate_captions(texts, references, is_true=is_true),
        **evaluation.measure_wording(list(texts.values()), training_captions),
        **masked,
        "num_photos": len(photos),
    }
    if chosen := photos[:retrieval]:
        metrics |= captioner_figures.measure_retrieval(
            captioner,
            features[: len(chosen)],
            captioner_figures.one_caption_each(chosen),
        )
    if java_scores:
        metrics |= evaluation.score_with_java(texts, references)
    evaluation.write_coco_results(out / "predictions.json", texts)
    evaluation.write_metrics(out / "metrics.json", metrics)
    shown = photos[:_PICTURES]
    draw_photos(
        out / "grid.png",
        [photo.path for photo in shown],
        [texts[photo.image_id] for photo in shown],
    )
    if report is not None:
        from bmt_keras.report import ReportData, write_report

        each = evaluation.score_each_caption(texts, references)
        page = write_report(
            report,
            ReportData(
                "Captions of photos",
                _to_rows(photos, captions, each),
                scores={"captioner": metrics},
                calibration={"masked tokens": bins},
                passes=(
                    captioner_figures.measure_passes(
                        captioner, features, references
                    )
                    if passes_curve
                    else ()
                ),
            ),
        )
        typer.echo(f"{page}: the report")
    _print_metrics(metrics)


def _to_rows(
    photos: Sequence[CaptionedImage],
    captions: "Mapping[int, Caption]",
    each: Mapping[int, float],
) -> "list[CaptionedPhoto]":
    from bmt_keras.report import CaptionedPhoto

    rows = []
    for photo in photos:
        caption = captions[photo.image_id]
        rows.append(
            CaptionedPhoto(
                image_id=photo.image_id,
                path=photo.path,
                caption=caption.text,
                tokens=caption.tokens,
                token_scores=caption.token_scores,
                score=caption.score,
                references=photo.captions,
                cider_d=each[photo.image_id],
            )
        )
    return rows


def _read_features(
    captioner: "Captioner", photos: Sequence[CaptionedImage], skip_bad: bool
) -> "tuple[list[CaptionedImage], np.ndarray]":
    """Reads photos ahead of the image model; the good ones come back."""
    import numpy as np

    from bmt_keras.data.images import decode_images, report_unreadable

    good: list[CaptionedImage] = []
    features: list[np.ndarray] = []
    bad: list[str] = []
    settings = captioner.settings
    with show_progress("Reading photos") as on_progress:
        for batch, pixels, errors in decode_images(
            photos, height=settings.image.height, width=settings.image.width
        ):
            kept = [i for i, error in enumerate(errors) if not error]
            if kept:
                good += [batch[i] for i in kept]
                features.append(captioner.features(pixels[i] for i in kept))
            bad += [
                f"{photo.path} ({error})"
                for photo, error in zip(batch, errors, strict=True)
                if error
            ]
            on_progress("all", len(good) + len(bad), len(photos))
    report_unreadable(bad, len(photos), skip_bad=skip_bad)
    if not good:
        raise InputError(
            f"Expected photos that can be read, found none among {len(photos)}."
        )
    return good, np.concatenate(features)


def _truth_rule(
    facts: Path, photos: Sequence[CaptionedImage]
) -> Callable[[int, str], bool]:
    from bmt_keras.sample import caption_is_true, read_facts

    scenes = read_facts(facts)
    missing = [p.image_id for p in photos if p.image_id not in scenes]
    if missing:
        raise InputError(
            f"{facts}: expected facts of every photo, found none of image "
            f"{missing[0]} ({len(missing)} are missing)."
        )
    return lambda image_id, text: caption_is_true(text, scenes[image_id])


def _print_metrics(metrics: Mapping[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value")
    for name, value in sorted(metrics.items()):
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
