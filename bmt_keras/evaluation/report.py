"""The report of an evaluation: one HTML page to read captions by.

The page needs no network, no script and no other file, so that it can be sent
or kept as it is. Jinja2 escapes every text in it.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jinja2
import numpy as np

from bmt_keras.atomic import write_atomically
from bmt_keras.evaluation.charts import (
    draw_lengths,
    draw_passes,
    draw_reliability,
)
from bmt_keras.evaluation.model_metrics import PassesPoint
from bmt_keras.evaluation.reliability import ReliabilityBin, calibration_error
from bmt_keras.evaluation.words import split_caption

FILE_NAME = "report.html"
EXPLANATIONS = {
    "bleu_1": "words shared with people's captions",
    "bleu_2": "word pairs shared",
    "bleu_3": "runs of three words shared",
    "bleu_4": "runs of four words shared",
    "rouge_l": "longest common subsequence of words",
    "meteor": "words shared, stems and synonyms among them",
    "spice": "objects, attributes and relations shared",
    "cider_d": "telling words shared, 0 to 10",
    "cider_d_shuffled": "the same with captions of other images",
    "truth": "share of captions that are true of the image",
    "truth_shuffled": "the same with captions of other images",
    "distinct": "share of different captions",
    "novel": "share of captions not among the training captions",
    "vocabulary_used": "different words in all captions",
    "mean_length": "words per caption",
    "repeating_captions": "share of captions with a word twice in a row",
    "repeated_words": "share of words that repeat the one before",
    "masked_accuracy": "share of masked tokens guessed, 15 % masked",
    "calibration_error": "how far confidence is from the share guessed",
    "calibration_error_raw": "the same without the fitted calibration",
    "image_recall_at_1": "captions whose image they fit best",
    "image_recall_at_5": "captions whose image is among the best 5",
    "image_recall_at_10": "captions whose image is among the best 10",
    "text_recall_at_1": "images whose caption fits them best",
    "text_recall_at_5": "images whose caption is among the best 5",
    "text_recall_at_10": "images whose caption is among the best 10",
    "num_images": "images",
}
_SHADING = "The darker a token, the less sure the model was of it."
_DARKEST = 0.8  # opacity of a token of no confidence
_WORD_START = "\u2581"  # SentencePiece's sign for a space
_THUMBNAIL = 360  # pixels, the longer side
_JPEG_QUALITY = 78


@dataclass(frozen=True)
class ReportImage:
    """An image, what was written of it and how good that is.

    Attributes:
        image_id: The image's id.
        path: The image's file.
        caption: The written caption.
        tokens: Its tokens, perhaps with SentencePiece's sign for a space.
        token_scores: Log-probability of each token, in nats.
        score: Mean log-probability per token, in nats.
        references: Captions by people.
        cider_d: CIDEr-D of the caption, in [0, 10].
        correct: Whether the caption is true, where that is known.

    Raises:
        ValueError: Tokens and their scores are not as many.
    """

    image_id: int
    path: Path
    caption: str
    tokens: tuple[str, ...]
    token_scores: tuple[float, ...]
    score: float
    references: tuple[str, ...]
    cider_d: float
    correct: bool | None = None

    def __post_init__(self) -> None:
        """Checks that tokens and their scores are as many."""
        if len(self.tokens) != len(self.token_scores):
            raise ValueError(
                "`token_scores` must hold one score per token. Received: "
                f"{len(self.token_scores)} scores, {len(self.tokens)} tokens"
            )


@dataclass(frozen=True)
class ReportData:
    """What a report shows. Sections without data are left out.

    Attributes:
        title: The page's heading.
        images: The captioned images, at least one.
        scores: Scores by name for each captioner, by the captioner's name.
            One may lack a score that another has.
        calibration: Bins of `reliability_bins` by what was guessed, such as
            tokens and captions. Those without a guess are left out.
        passes: Score and time by the number of decoding passes.
        facts: What was evaluated, such as model and data, by name.
    """

    title: str
    images: Sequence[ReportImage]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    calibration: Mapping[str, Sequence[ReliabilityBin]] = field(
        default_factory=dict
    )
    passes: Sequence[PassesPoint] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


class _Chart(NamedTuple):
    png: bytes
    alt: str
    caption: str


_Section = dict[str, Any]


def write_report(
    folder: str | Path, data: ReportData, *, shown: int = 6
) -> Path:
    """Writes the report, whole or not at all.

    Args:
        folder: The folder of `report.html`.
        data: What to show.
        shown: How many of the best, the worst and the confidently wrong images
            are shown.

    Returns:
        The page's path.

    Raises:
        ValueError: There is no image or `shown` is below 1.
    """
    if not data.images:
        raise ValueError("`data` must hold an image. Received: none")
    if shown < 1:
        raise ValueError(f"`shown` must be at least 1. Received: {shown}")
    sections = [
        *_score_sections(data),
        _length_section(data.images),
        *_confidence_sections(data.calibration),
        *_passes_sections(data.passes),
        *_image_sections(data.images, shown),
    ]
    for section in sections:
        section["id"] = "-".join(section["heading"].lower().split())
    page = _template().render(title=data.title, sections=sections)
    path = Path(folder) / FILE_NAME
    with write_atomically(path) as file:
        # JSON may hold half a character, which UTF-8 cannot.
        file.write(page.encode("utf-8", "replace").decode("utf-8"))
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _format_cell
    environment.filters["data_url"] = _data_url
    return environment.get_template(FILE_NAME)


def _format_cell(value: str | float | None) -> str:
    """Formats a table's value: whole numbers as such, others to 3 digits."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "\u2013"
    if isinstance(value, str):
        return value
    # A share of 1 keeps its digits, a count of 12 needs none.
    whole = isinstance(value, int) or (value >= 10 and value == int(value))
    return f"{value:.0f}" if whole else f"{value:.3f}"


def _data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _section(heading: str, **content: Any) -> _Section:
    names = ("note", "facts", "chart", "columns", "rows", "caption", "cards")
    return {"heading": heading, **dict.fromkeys(names), **content}


# === Figures ===


def _score_sections(data: ReportData) -> list[_Section]:
    names = dict.fromkeys(
        name for scores in data.scores.values() for name in scores
    )
    if not names and not data.facts:
        return []
    rows = [
        [
            name,
            *(scores.get(name) for scores in data.scores.values()),
            EXPLANATIONS.get(name, ""),
        ]
        for name in names
    ]
    return [
        _section(
            "Scores",
            facts=data.facts,
            columns=["score", *data.scores, "meaning"],
            rows=rows,
            caption=f"Scores on {len(data.images)} images",
        )
    ]


def _length_section(images: Sequence[ReportImage]) -> _Section:
    lengths = {
        "written": [len(split_caption(image.caption)) for image in images],
        "by people": [
            len(split_caption(reference))
            for image in images
            for reference in image.references
        ],
    }
    lengths = {name: counts for name, counts in lengths.items() if counts}
    means = ", ".join(
        f"{name} {sum(counts) / len(counts):.1f} words on average"
        for name, counts in lengths.items()
    )
    alt = f"Histogram of caption lengths: {means}."
    return _section(
        "Length of captions", chart=_Chart(draw_lengths(lengths), alt, means)
    )


def _confidence_sections(
    calibration: Mapping[str, Sequence[ReliabilityBin]],
) -> list[_Section]:
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
    alt = f"Share correct against confidence. {errors}."
    return [
        _section(
            "Confidence",
            note="On the dashed line, confidence equals the share that is "
            "correct.",
            chart=_Chart(draw_reliability(filled), alt, errors),
        )
    ]


def _passes_sections(points: Sequence[PassesPoint]) -> list[_Section]:
    if not points:
        return []
    return [
        _section(
            "Passes",
            chart=_Chart(
                draw_passes(points),
                "CIDEr-D and seconds against passes; the table has the values.",
                "Score and time by the number of decoding passes",
            ),
            columns=["passes", "CIDEr-D", "seconds"],
            rows=[list(point) for point in sorted(points)],
            caption="Decoding passes",
        )
    ]


# === Images ===


def _image_sections(
    images: Sequence[ReportImage], shown: int
) -> list[_Section]:
    ranked = sorted(images, key=lambda image: (-image.cider_d, image.image_id))
    wrong, rule = _choose_wrong(ranked)
    confident = sorted(wrong, key=lambda image: -image.score)[:shown]
    groups = [
        ("Best captions", ranked[:shown], "The highest CIDEr-D."),
        ("Worst captions", ranked[: -shown - 1 : -1], "The lowest CIDEr-D."),
    ]
    if confident:
        note = f"The highest confidence among {rule}."
        groups.append(("Confident but wrong", confident, note))
    return [
        _section(
            heading, note=f"{note} {_SHADING}", cards=list(map(_card, chosen))
        )
        for heading, chosen, note in groups
    ]


def _choose_wrong(
    ranked: Sequence[ReportImage],
) -> tuple[list[ReportImage], str]:
    """Images with wrong captions, and the rule by which they are wrong."""
    if any(image.correct is not None for image in ranked):
        wrong = [image for image in ranked if image.correct is False]
        return wrong, "captions that are not true"
    lowest = len(ranked) // 4
    return (
        list(ranked[len(ranked) - lowest :]),
        "the quarter of captions with the lowest CIDEr-D",
    )


def _card(image: ReportImage) -> dict[str, Any]:
    facts = [
        f"Photo {image.image_id}",
        f"CIDEr-D {image.cider_d:.2f}",
        f"confidence {math.exp(image.score):.2f}",
    ]
    if image.correct is not None:
        facts.append("true" if image.correct else "not true")
    confidences = [math.exp(min(score, 0.0)) for score in image.token_scores]
    return {
        "image_id": image.image_id,
        "caption": image.caption,
        "references": image.references,
        "facts": facts,
        "thumbnail": _make_thumbnail(image.path),
        "tokens": [
            {
                "text": token.replace(_WORD_START, " "),
                "confidence": confidence,
                "opacity": _DARKEST * (1 - confidence),
            }
            for token, confidence in zip(image.tokens, confidences, strict=True)
        ],
    }


def _make_thumbnail(path: Path) -> bytes | None:
    """A small JPEG of the image as the model sees it, unrotated."""
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        pixels = cv2.imdecode(
            content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except (OSError, cv2.error):
        return None
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return bytes(cv2.imencode(".jpg", small, quality)[1])
