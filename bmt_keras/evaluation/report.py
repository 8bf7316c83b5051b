"""The report of an evaluation: one HTML page to read captions by.

The page needs no network, no script and no other file, so that it can be sent
or kept as it is. Jinja2 escapes every text in it.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import jinja2
import numpy as np

from bmt_keras.atomic import write_atomically
from bmt_keras.evaluation.plots import (
    draw_lengths,
    draw_passes,
    draw_reliability,
)
from bmt_keras.evaluation.reliability import ReliabilityBin, calibration_error
from bmt_keras.evaluation.scores import PassesPoint
from bmt_keras.evaluation.words import split_caption

if TYPE_CHECKING:
    from bmt_keras.captioner import Caption
    from bmt_keras.data.captions import CaptionedImage

_TEMPLATE = "report.html"
_EXPLANATIONS = {
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
_SHOWN = 6  # of the best, the worst and the confidently wrong captions
_DARKEST = 0.8  # opacity of a token of no confidence
_WORD_START = "\u2581"  # SentencePiece's sign for a space
_THUMBNAIL = 360  # pixels, the longer side
_JPEG_QUALITY = 78


class ReportImage(NamedTuple):
    """An image, what was written of it and how good that is.

    Attributes:
        image: The image, with captions by people.
        caption: The written caption.
        cider_d: Its CIDEr-D, in [0, 10].
        correct: Whether it is true, where that is known.
    """

    image: "CaptionedImage"
    caption: "Caption"
    cider_d: float
    correct: bool | None = None


def write_report(
    folder: str | Path,
    images: Sequence[ReportImage],
    *,
    metrics: Mapping[str, float],
    bins: Sequence[ReliabilityBin] = (),
    passes: Sequence[PassesPoint] = (),
) -> Path:
    """Writes the report, whole or not at all.

    Args:
        folder: The folder of `report.html`.
        images: The captioned images, at least one.
        metrics: Scores by name.
        bins: Of the confidence of guesses at masked tokens.
        passes: Score and time by the number of decoding passes.

    Returns:
        The page's path.

    Raises:
        ValueError: There is no image.
    """
    if not images:
        raise ValueError("`images` must hold an image. Received: none")
    sections = [
        _section(
            f"Scores on {len(images)} images",
            columns=["score", "value", "meaning"],
            rows=[
                [name, value, _EXPLANATIONS.get(name, "")]
                for name, value in metrics.items()
            ],
        ),
        *_chart_sections(images, bins, passes),
        *_card_sections(images),
    ]
    page = _template().render(title="Captions of images", sections=sections)
    path = Path(folder) / _TEMPLATE
    with write_atomically(path) as file:
        # JSON may hold half a character, which UTF-8 cannot.
        file.write(page.encode("utf-8", "replace").decode("utf-8"))
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        # A name that the template misspells is an error, not an empty text.
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _format_cell
    environment.filters["data_url"] = _data_url
    return environment.get_template(_TEMPLATE)


def _format_cell(value: str | float) -> str:
    """Formats a table's value: whole numbers as such, others to 3 digits."""
    if isinstance(value, str):
        return value
    # A share of 1 keeps its digits, a count of 12 needs none.
    whole = isinstance(value, int) or (value >= 10 and value == int(value))
    return f"{value:.0f}" if whole else f"{value:.3f}"


def _data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _section(heading: str, **content: Any) -> dict[str, Any]:
    names = ("note", "chart", "alt", "columns", "rows", "cards")
    return {"heading": heading, **dict.fromkeys(names), **content}


def _chart_sections(
    images: Sequence[ReportImage],
    bins: Sequence[ReliabilityBin],
    passes: Sequence[PassesPoint],
) -> list[dict[str, Any]]:
    sections = [_length_section(images)]
    if guesses := sum(each.count for each in bins):
        error = f"Expected calibration error {calibration_error(bins):.3f}"
        section = _section(
            "Confidence",
            note="On the dashed line, confidence equals the share that is "
            "correct.",
            chart=draw_reliability(bins),
            alt=f"Share correct against confidence. {error} of {guesses} "
            "masked tokens.",
        )
        sections.append(section)
    if passes:
        section = _section(
            "Passes",
            chart=draw_passes(passes),
            alt="CIDEr-D and seconds against the number of decoding passes.",
            columns=["passes", "CIDEr-D", "seconds"],
            rows=[list(point) for point in sorted(passes)],
        )
        sections.append(section)
    return sections


def _length_section(images: Sequence[ReportImage]) -> dict[str, Any]:
    lengths = {
        "written": [len(split_caption(each.caption.text)) for each in images],
        "by people": [
            len(split_caption(reference))
            for each in images
            for reference in each.image.captions
        ],
    }
    lengths = {name: counts for name, counts in lengths.items() if counts}
    means = ", ".join(
        f"{name} {sum(counts) / len(counts):.1f} words on average"
        for name, counts in lengths.items()
    )
    return _section(
        "Length of captions",
        chart=draw_lengths(lengths),
        alt=f"Histogram of caption lengths: {means}.",
    )


def _card_sections(images: Sequence[ReportImage]) -> list[dict[str, Any]]:
    ranked = sorted(
        images, key=lambda each: (-each.cider_d, each.image.image_id)
    )
    if any(each.correct is not None for each in ranked):
        wrong = [each for each in ranked if each.correct is False]
        rule = "captions that are not true"
    else:
        wrong = ranked[len(ranked) - len(ranked) // 4 :]
        rule = "the quarter of captions with the lowest CIDEr-D"
    wrong = sorted(wrong, key=lambda each: -each.caption.confidence)
    groups = (
        ("Best captions", ranked[:_SHOWN], "The highest CIDEr-D."),
        ("Worst captions", ranked[: -_SHOWN - 1 : -1], "The lowest CIDEr-D."),
        (
            "Confident but wrong",
            wrong[:_SHOWN],
            f"The highest confidence among {rule}.",
        ),
    )
    return [
        _section(
            heading, note=f"{note} {_SHADING}", cards=list(map(_card, chosen))
        )
        for heading, chosen, note in groups
        if chosen
    ]


def _card(shown: ReportImage) -> dict[str, Any]:
    caption = shown.caption
    facts = [
        f"Image {shown.image.image_id}",
        f"CIDEr-D {shown.cider_d:.2f}",
        f"confidence {caption.confidence:.2f}",
    ]
    if shown.correct is not None:
        facts.append("true" if shown.correct else "not true")
    return {
        "image_id": shown.image.image_id,
        "caption": caption.text,
        "references": shown.image.captions,
        "facts": facts,
        "thumbnail": _make_thumbnail(shown.image.path),
        "tokens": [
            {
                "text": token.replace(_WORD_START, " "),
                "confidence": confidence,
                "opacity": _DARKEST * (1 - confidence),
            }
            for token, confidence in zip(
                caption.tokens, caption.confidences, strict=True
            )
        ],
    }


def _make_thumbnail(path: Path) -> bytes | None:
    """A small JPEG of the image as the model sees it, unrotated."""
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        pixels = cv2.imdecode(
            content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    # OpenCV raises for an empty file, and gives None for a broken one.
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
