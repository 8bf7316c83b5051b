"""Scores of a captioner: its captions, its guesses and its confidence.

`evaluate_captioner` is what `bmt evaluate` and the end of a training run call.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bmt_keras.atomic import write_atomically
from bmt_keras.evaluation.java_scores import score_with_java
from bmt_keras.evaluation.reliability import (
    ReliabilityBin,
    calibration_error,
    reliability_bins,
)
from bmt_keras.evaluation.scores import (
    PassesPoint,
    evaluate_captions,
    measure_wording,
    score_each_caption,
    split_sentences,
)
from bmt_keras.evaluation.words import strip_marks
from bmt_keras.progress import watch

if TYPE_CHECKING:
    from bmt_keras.captioner import Calibration, Captioner
    from bmt_keras.captioner.calibration import MaskedGuesses
    from bmt_keras.data.captions import CaptionedImage

_LOGGER = logging.getLogger(__name__)
PASSES = (1, 2, 4, 8, 12)
_RECALL_AT = (1, 5, 10)
_GRID_IMAGES = 12
_LETTERS_SHOWN = 20


def evaluate_captioner(
    captioner: "Captioner",
    images: "Sequence[CaptionedImage]",
    features: np.ndarray,
    *,
    out: Path,
    retrieval: int = 0,
    is_true: Callable[[int, str], bool] | None = None,
    training_captions: Sequence[str] | None = None,
    java_scores: bool = False,
    report: Path | None = None,
) -> dict[str, float]:
    """Captions images, scores the captions and writes both down.

    Args:
        captioner: The captioner.
        images: Images with captions by people.
        features: (images, ...), as `Captioner.read_features` gives them.
        out: Folder of `predictions.json`, `metrics.json` and `grid.png`.
        retrieval: Number of images among which recall is measured; 0 for none.
        is_true: Rule of a caption's truth, where there is one.
        training_captions: What the captioner was trained on, if known.
        java_scores: Whether METEOR and SPICE are computed, where Java is.
        report: Folder of `report.html`; None for no page.

    Returns:
        The scores by name.
    """
    # Loading scores alone loads no model and no optional package.
    from bmt_keras.captioner.calibration import (
        guess_masked_tokens,
        one_caption_each,
    )
    from bmt_keras.data.tokenizer import warn_of_cuts
    from bmt_keras.evaluation.plots import draw_caption_grid

    references = {x.image_id: [*map(strip_marks, x.captions)] for x in images}
    # What no score takes is refused before anything is captioned.
    split_sentences(dict.fromkeys(references, ""), references)
    written = captioner.caption(watch("Captioning images", features))
    texts = {
        image.image_id: caption.text
        for image, caption in zip(images, written, strict=True)
    }
    letters = {y.lower() for x in images for y in "".join(x.captions)}
    if changed := sorted(x for x in letters if strip_marks(x) != x):
        _LOGGER.info(
            "References are scored as the captioner can write them, without "
            "the marks of %s.",
            " ".join(changed[:_LETTERS_SHOWN]),
        )
    masked, bins = measure_masked_tokens(
        guess_masked_tokens(captioner, features, one_caption_each(images)),
        captioner.calibration,
    )
    metrics = {
        **evaluate_captions(texts, references, is_true=is_true),
        **measure_wording(
            list(texts.values()),
            training_captions and [*map(strip_marks, training_captions)],
        ),
        **masked,
        "num_images": len(images),
    }
    # Every caption is scored with every image: the time grows by the square.
    if chosen := images[:retrieval]:
        captions = one_caption_each(chosen)
        length = captioner.settings.text.sequence_length
        warn_of_cuts(captioner.tokenizer.encode(captions), length)
        metrics |= measure_retrieval(
            captioner, features[: len(chosen)], captions
        )
    if java_scores:
        metrics |= score_with_java(texts, references)
    # COCO's results format.
    _write_json(
        out / "predictions.json",
        [{"image_id": key, "caption": texts[key]} for key in sorted(texts)],
    )
    write_metrics(out / "metrics.json", metrics)
    # The first ones, not the best: a grid that flatters shows nothing.
    draw_caption_grid(
        [image.path for image in images[:_GRID_IMAGES]],
        [caption.text for caption in written[:_GRID_IMAGES]],
        out / "grid.png",
    )
    if report is None:
        return metrics

    from bmt_keras.evaluation.report import ReportImage, write_report

    cider_d = score_each_caption(texts, references)
    shown = []
    for image, caption in zip(images, written, strict=True):
        key = image.image_id
        correct = is_true(key, caption.text) if is_true else None
        shown.append(ReportImage(image, caption, cider_d[key], correct))
    points = measure_passes(captioner, features, references)
    write_report(report, shown, metrics=metrics, bins=bins, passes=points)
    return metrics


def measure_masked_tokens(
    guesses: "MaskedGuesses", calibration: "Calibration"
) -> tuple[dict[str, float], list[ReliabilityBin]]:
    """Measures how often guesses are right, and whether confidence says so.

    Returns:
        `masked_accuracy`, `calibration_error` and
        `calibration_error_raw` (without the calibration), all in [0, 1];
        and the bins of the calibrated confidences.
    """
    correct = guesses.correct
    raw = reliability_bins(np.exp(guesses.log_probs), correct)
    scaled = np.exp(calibration.apply(guesses.log_probs))
    bins = reliability_bins(scaled, correct)
    figures = {
        "masked_accuracy": float(np.mean(correct)),
        "calibration_error": calibration_error(bins),
        "calibration_error_raw": calibration_error(raw),
    }
    return figures, bins


def measure_retrieval(
    captioner: "Captioner", features: np.ndarray, captions: Sequence[str]
) -> dict[str, float]:
    """Measures recall by `Captioner.score` among images with a caption each.

    Those are by people; `features` are (images, ...).

    Returns:
        `image_recall_at_1`, `_5` and `_10`: the share of captions whose image
        is among the 1, 5 and 10 images under which it scores best; and
        `text_recall_at_…`: of images whose caption is among those that score
        best. Of equal scores the wrong ones come first, so that a score that
        tells nothing earns nothing.

    Reference:
        Hodosh et al. 2013, "Framing Image Description as a Ranking Task".
    """
    scores = np.stack(
        [
            captioner.score_features(features, [text] * len(features))
            for text in watch("Scoring captions", captions)
        ],
        axis=1,
    )  # (images, texts)
    ranks = {
        # Less a text's mean over the images: short and common texts would
        # come first for every image.
        "text": _own_ranks(scores - scores.mean(axis=0)),
        "image": _own_ranks(scores.T),
    }
    return {
        f"{name}_recall_at_{k}": float(np.mean(found <= k))
        for name, found in ranks.items()
        for k in _RECALL_AT
    }


def _own_ranks(scores: np.ndarray) -> np.ndarray:
    """The rank, from 1, of column i in row i: (rows,)."""
    own = np.diagonal(scores)[:, np.newaxis]
    # Not >=: a score that is no number comes last.
    return len(scores) - (scores < own).sum(axis=1)


def measure_passes(
    captioner: "Captioner",
    features: np.ndarray,
    references: Mapping[int, Sequence[str]],
) -> list[PassesPoint]:
    """Measures CIDEr-D and time by the number of passes.

    `features`, (images, ...), stand in the order of `references`.

    Returns:
        A point for each of `PASSES`; the time is that of writing all captions,
        embedding of the images left out.
    """
    # Traces the graph, which is no part of the time.
    captioner.caption(features[:32])
    points = []
    for number in watch("Captioning by passes", PASSES):
        start = time.perf_counter()
        written = captioner.caption(features, passes=number)
        seconds = time.perf_counter() - start
        texts = [caption.text for caption in written]
        captions = dict(zip(references, texts, strict=True))
        scores = score_each_caption(captions, references).values()
        points.append(PassesPoint(number, float(np.mean([*scores])), seconds))
    return points


def write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Writes numbers as JSON, sorted by name, floats rounded to 6 digits.

    Raises:
        ValueError: If a number is infinite or not a number.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(
                f"Metrics must be finite numbers. Received: {name}={value}"
            )
    # JSON has no NumPy numbers, and no NaN.
    rounded = {
        name: value if isinstance(value, int) else round(float(value), 6)
        for name, value in sorted(metrics.items())
    }
    _write_json(path, rounded)


def _write_json(path: Path, content: Any) -> None:
    with write_atomically(path) as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
