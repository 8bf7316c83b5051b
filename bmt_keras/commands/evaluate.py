"""`bmt evaluate`: captions of photos against captions by people."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bmt_keras.commands import inputs
from bmt_keras.commands.pictures import draw_photos
from bmt_keras.commands.progress import show_progress
from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.data.coco import Photo, read_coco_captions
from bmt_keras.errors import InputError

if TYPE_CHECKING:
    from bmt_keras.captioner import Captioner

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
    limit: inputs.Limit = None,
    skip_bad: inputs.SkipBad = False,
) -> None:
    """Caption photos and score the captions."""
    photos = read_coco_captions(captions, images, limit=limit)
    is_true = None if facts is None else _truth_rule(facts, photos)
    load_tensorflow()
    from bmt_keras.captioner import Captioner

    texts = _caption_photos(Captioner.load(captioner), photos, skip_bad)
    write_evaluation(out, photos, texts, is_true=is_true)


def write_evaluation(
    out: Path,
    photos: Sequence[Photo],
    captions: Mapping[int, str],
    *,
    is_true: Callable[[int, str], bool] | None = None,
) -> None:
    """Writes predictions, scores and a grid of pictures; prints the scores.

    Args:
        out: Folder of `predictions.json`, `metrics.json` and `grid.png`.
        photos: Photos with captions by people.
        captions: Written captions by image id; photos without one are left
            out.
        is_true: Rule of a caption's truth, where there is one.
    """
    from bmt_keras import evaluation

    good = [photo for photo in photos if photo.image_id in captions]
    metrics = evaluation.evaluate_captions(
        captions,
        {photo.image_id: photo.captions for photo in good},
        is_true=is_true,
    )
    metrics["num_photos"] = len(good)
    evaluation.write_coco_results(out / "predictions.json", captions)
    evaluation.write_metrics(out / "metrics.json", metrics)
    shown = good[:_PICTURES]
    draw_photos(
        out / "grid.png",
        [photo.path for photo in shown],
        [captions[photo.image_id] for photo in shown],
    )
    _print_metrics(metrics)


def _caption_photos(
    captioner: "Captioner", photos: Sequence[Photo], skip_bad: bool
) -> dict[int, str]:
    from bmt_keras.data.photo_reader import decode_photos, report_unreadable

    texts: dict[int, str] = {}
    bad: list[str] = []
    settings = captioner.settings
    with show_progress("Captioning photos") as on_progress:
        for batch, pixels, errors in decode_photos(
            photos, height=settings.image_height, width=settings.image_width
        ):
            good = [i for i, error in enumerate(errors) if not error]
            written = captioner.caption(pixels[i] for i in good)
            for i, caption in zip(good, written, strict=True):
                texts[batch[i].image_id] = caption.text
            bad += [
                f"{photo.path} ({error})"
                for photo, error in zip(batch, errors, strict=True)
                if error
            ]
            on_progress("all", len(texts) + len(bad), len(photos))
    report_unreadable(bad, len(photos), skip_bad=skip_bad)
    return texts


def _truth_rule(
    facts: Path, photos: Sequence[Photo]
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
