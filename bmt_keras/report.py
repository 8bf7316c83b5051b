"""The report of an evaluation: one HTML page to read captions by.

The page needs no network, no script and no other file, so that it can be sent
or kept as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bmt_keras.atomic import write_atomically
from bmt_keras.caption_text import split_caption
from bmt_keras.evaluation.calibration import ReliabilityBin, calibration_error
from bmt_keras.evaluation.charts import (
    PassesPoint,
    draw_lengths,
    draw_passes,
    draw_reliability,
)
from bmt_keras.evaluation.page import (
    render_chart,
    render_facts,
    render_page,
    render_section,
    render_table,
)
from bmt_keras.evaluation.photo_cards import CaptionedPhoto, render_cards

__all__ = ["CaptionedPhoto", "PassesPoint", "ReportData", "write_report"]

FILE_NAME = "report.html"

_EXPLANATIONS = {
    "bleu_1": "words shared with people's captions",
    "bleu_2": "word pairs shared",
    "bleu_3": "runs of three words shared",
    "bleu_4": "runs of four words shared",
    "rouge_l": "longest common subsequence of words",
    "meteor": "words shared, stems and synonyms among them",
    "spice": "objects, attributes and relations shared",
    "cider_d": "telling words shared, 0 to 10",
    "cider_d_shuffled": "the same with captions of other photos",
    "truth": "share of captions that are true of the photo",
    "truth_shuffled": "the same with captions of other photos",
    "distinct": "share of different captions",
    "novel": "share of captions not among the training captions",
    "vocabulary_used": "different words in all captions",
    "mean_length": "words a caption",
    "repeating_captions": "share of captions with a word said twice in a row",
    "repeated_words": "share of words that repeat the one before",
    "masked_accuracy": "share of masked tokens guessed, 15 % masked",
    "calibration_error": "how far confidence is from the share guessed",
    "calibration_error_raw": "the same without the fitted calibration",
    "photo_recall_at_1": "captions whose photo they fit best",
    "photo_recall_at_5": "captions whose photo is among the best 5",
    "photo_recall_at_10": "captions whose photo is among the best 10",
    "text_recall_at_1": "photos whose caption fits them best",
    "text_recall_at_5": "photos whose caption is among the best 5",
    "text_recall_at_10": "photos whose caption is among the best 10",
    "num_photos": "photos",
}
_SHADING = "The darker a token, the less sure the model was of it."


@dataclass(frozen=True)
class ReportData:
    """What a report tells. Sections without data are left out.

    Attributes:
        title: The page's heading.
        photos: The captioned photos, at least one.
        scores: Scores by name for each captioner, by the captioner's name.
            One may lack a score that another has.
        calibration: Bins of `evaluation.reliability_bins` by what was guessed,
            such as tokens and captions. Those without a guess are left out.
        passes: Score and time by the number of decoding passes.
        facts: What was evaluated, such as model and data, by name.
    """

    title: str
    photos: Sequence[CaptionedPhoto]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    calibration: Mapping[str, Sequence[ReliabilityBin]] = field(
        default_factory=dict
    )
    passes: Sequence[PassesPoint] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def write_report(
    folder: str | Path, data: ReportData, *, shown: int = 6
) -> Path:
    """Writes the report, whole or not at all.

    Args:
        folder: The folder of `report.html`.
        data: What to tell. All texts are escaped.
        shown: How many of the best, the worst and the confidently wrong photos
            are shown.

    Returns:
        The page's path.

    Raises:
        ValueError: If there is no photo or `shown` is below 1.
    """
    if not data.photos:
        raise ValueError("`data` must hold a photo. Received: none")
    if shown < 1:
        raise ValueError(f"`shown` must be at least 1. Received: {shown}")
    sections = [
        *_render_scores(data),
        _render_lengths(data.photos),
        *_render_calibration(data.calibration),
        *_render_passes(data.passes),
        *_render_photos(data.photos, shown),
    ]
    path = Path(folder) / FILE_NAME
    with write_atomically(path) as file:
        file.write(render_page(data.title, sections))
    return path


# === Figures ===


def _render_scores(data: ReportData) -> list[str]:
    content = [render_facts(data.facts)] if data.facts else []
    names = dict.fromkeys(
        name for scores in data.scores.values() for name in scores
    )
    if names:
        rows = [
            [
                name,
                *(scores.get(name) for scores in data.scores.values()),
                _EXPLANATIONS.get(name, ""),
            ]
            for name in names
        ]
        columns = ["score", *data.scores, "meaning"]
        caption = f"Scores on {len(data.photos)} photos"
        content.append(render_table(columns, rows, caption=caption))
    return [render_section("Scores", content)] if content else []


def _render_lengths(photos: Sequence[CaptionedPhoto]) -> str:
    written = [len(split_caption(photo.caption)) for photo in photos]
    people = [
        len(split_caption(reference))
        for photo in photos
        for reference in photo.references
    ]
    lengths = {"written": written, "by people": people}
    means = ", ".join(
        f"{name} {sum(counts) / len(counts):.1f} words on average"
        for name, counts in lengths.items()
        if counts
    )
    png = draw_lengths({name: each for name, each in lengths.items() if each})
    chart = render_chart(
        png, alt=f"Histogram of caption lengths: {means}.", caption=means
    )
    return render_section("Length of captions", [chart])


def _render_calibration(
    calibration: Mapping[str, Sequence[ReliabilityBin]],
) -> list[str]:
    filled = {
        name: bins
        for name, bins in calibration.items()
        if any(each.count for each in bins)
    }
    if not filled:
        return []
    errors = "; ".join(
        f"{name}: expected calibration error {calibration_error(bins):.3f} "
        f"of {sum(each.count for each in bins)} guesses"
        for name, bins in filled.items()
    )
    chart = render_chart(
        draw_reliability(filled),
        alt=f"Share correct against confidence. {errors}.",
        caption=errors,
    )
    note = "On the dashed line, confidence equals the share that is correct."
    return [render_section("Confidence", [chart], note)]


def _render_passes(points: Sequence[PassesPoint]) -> list[str]:
    if not points:
        return []
    rows = [list(point) for point in sorted(points)]
    content = [
        render_chart(
            draw_passes(points),
            alt="CIDEr-D and seconds against passes; the table has the values.",
            caption="Score and time by the number of decoding passes",
        ),
        render_table(
            ["passes", "CIDEr-D", "seconds"], rows, caption="Decoding passes"
        ),
    ]
    return [render_section("Passes", content)]


# === Photos ===


def _render_photos(photos: Sequence[CaptionedPhoto], shown: int) -> list[str]:
    ranked = sorted(photos, key=lambda photo: (-photo.cider_d, photo.image_id))
    wrong, rule = _choose_wrong(ranked)
    confident = sorted(wrong, key=lambda photo: -photo.score)[:shown]
    sections = [
        render_section(
            "Best captions",
            [render_cards(ranked[:shown])],
            f"The highest CIDEr-D. {_SHADING}",
        ),
        render_section(
            "Worst captions",
            [render_cards(ranked[: -shown - 1 : -1])],
            f"The lowest CIDEr-D. {_SHADING}",
        ),
    ]
    if confident:
        sections.append(
            render_section(
                "Confident but wrong",
                [render_cards(confident)],
                f"The highest confidence among {rule}. {_SHADING}",
            )
        )
    return sections


def _choose_wrong(
    ranked: Sequence[CaptionedPhoto],
) -> tuple[list[CaptionedPhoto], str]:
    """Photos with wrong captions, and the rule by which they are wrong."""
    if any(photo.correct is not None for photo in ranked):
        wrong = [photo for photo in ranked if photo.correct is False]
        return wrong, "captions that are not true"
    lowest = len(ranked) // 4
    return (
        list(ranked[len(ranked) - lowest :]),
        "the quarter of captions with the lowest CIDEr-D",
    )
