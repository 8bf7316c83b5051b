"""The report of an evaluation: one HTML page to read captions by.

The page needs no network, no script and no other file, so that it can be sent
or kept as it is. Jinja2 escapes every text in it.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import jinja2

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
_SHOWN = 6  # of the best, the worst and the confidently wrong captions
_THUMBNAIL = 360  # pixels, the longer side
_JPEG_QUALITY = 78


class ReportImage(NamedTuple):
    """An image, what was written of it and how good that is."""

    image: "CaptionedImage"  # with captions by people
    caption: "Caption"  # the written one
    cider_d: float  # in [0, 10]
    correct: bool | None = None  # whether it is true, where that is known


def write_report(
    folder: str | Path,
    images: Sequence[ReportImage],
    *,
    metrics: Mapping[str, float],
    bins: Sequence[ReliabilityBin] = (),
    passes: Sequence[PassesPoint] = (),
) -> None:
    """Writes the report, whole or not at all.

    Args:
        folder: The folder of `report.html`.
        images: The captioned images, at least one.
        metrics: Scores by name.
        bins: Of the confidence of guesses at masked tokens.
        passes: Score and time by the number of decoding passes.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        # A name that the template misspells is an error, not an empty text.
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["base64"] = lambda x: base64.b64encode(x).decode()
    environment.filters["thumbnail"] = _make_thumbnail
    lengths = {
        "written": [len(split_caption(each.caption.text)) for each in images],
        "by people": [
            len(split_caption(reference))
            for each in images
            for reference in each.image.captions
        ],
    }
    ranked = sorted(
        images, key=lambda each: (-each.cider_d, each.image.image_id)
    )
    truth_is_known = any(each.correct is not None for each in images)
    if truth_is_known:
        wrong = [each for each in ranked if each.correct is False]
    else:
        wrong = ranked[len(ranked) - len(ranked) // 4 :]
    wrong.sort(key=lambda each: -each.caption.confidence)
    page = environment.get_template(_TEMPLATE).render(
        images=images,
        metrics=metrics,
        lengths=lengths,
        lengths_chart=draw_lengths(lengths),
        bins=bins,
        bins_chart=draw_reliability(bins) if bins else None,
        calibration_error=calibration_error(bins) if bins else None,
        passes=passes,
        passes_chart=draw_passes(passes) if passes else None,
        best=ranked[:_SHOWN],
        worst=ranked[: -_SHOWN - 1 : -1],
        wrong=wrong[:_SHOWN],
        truth_is_known=truth_is_known,
    )
    with write_atomically(Path(folder) / _TEMPLATE) as file:
        # JSON may hold half a character, which UTF-8 cannot.
        file.write(page.encode("utf-8", "replace").decode("utf-8"))


def _make_thumbnail(path: Path) -> bytes | None:
    """A small JPEG of the image as the model sees it, unrotated."""
    pixels = cv2.imread(
        str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return bytes(cv2.imencode(".jpg", small, quality)[1])
