"""Scores of a captioner: its captions, its guesses and its confidence.

`evaluate_captioner` is what `bmt evaluate` and the end of a training run call.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bmt_keras.evaluation.files import write_coco_results, write_metrics
from bmt_keras.evaluation.java_scores import score_with_java
from bmt_keras.evaluation.reliability import (
    ReliabilityBin,
    calibration_error,
    reliability_bins,
)
from bmt_keras.evaluation.retrieval import retrieval_recall
from bmt_keras.evaluation.scores import (
    PassesPoint,
    evaluate_captions,
    score_each_caption,
)
from bmt_keras.evaluation.wording import measure_wording

if TYPE_CHECKING:
    from bmt_keras.captioner import Calibration, Captioner
    from bmt_keras.captioner.guesses import MaskedGuesses
    from bmt_keras.data.captions import CaptionedImage

PASSES = (1, 2, 4, 8, 12)
_GRID_IMAGES = 12


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
        out: Folder of `predictions.json` (COCO's results), `metrics.json` and
            `grid.png`.
        retrieval: Number of images among which recall is measured; 0 for none.
        is_true: Rule of a caption's truth, where there is one.
        training_captions: What the captioner was trained on, if known.
        java_scores: Whether METEOR and SPICE are computed, where Java is.
        report: Folder of `report.html`; None for no page.

    Returns:
        The scores by name.
    """
    # Loading scores alone loads no model and no optional package.
    from bmt_keras.captioner.guesses import (
        guess_masked_tokens,
        one_caption_each,
    )
    from bmt_keras.evaluation.plots import draw_caption_grid

    written = captioner.caption_features(features)
    texts = {
        image.image_id: caption.text
        for image, caption in zip(images, written, strict=True)
    }
    references = {image.image_id: image.captions for image in images}
    masked, bins = measure_masked_tokens(
        guess_masked_tokens(captioner, features, one_caption_each(images)),
        captioner.calibration,
    )
    metrics = {
        **evaluate_captions(texts, references, is_true=is_true),
        **measure_wording(list(texts.values()), training_captions),
        **masked,
        "num_images": len(images),
    }
    # Every caption is scored with every image: the time grows by the square.
    if chosen := images[:retrieval]:
        metrics |= measure_retrieval(
            captioner, features[: len(chosen)], one_caption_each(chosen)
        )
    if java_scores:
        metrics |= score_with_java(texts, references)
    write_coco_results(out / "predictions.json", texts)
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

    Args:
        captioner: The captioner.
        features: (images, ...).
        captions: A caption by people for each image.

    Returns:
        `image_recall_at_1`, `_5` and `_10`: the share of captions whose image
        is among the 1, 5 and 10 images under which it scores best; and
        `text_recall_at_…`: of images whose caption is among those that score
        best.
    """
    scores = np.stack(
        [
            captioner.score_features(features, [text] * len(features))
            for text in captions
        ],
        axis=1,
    )  # (images, texts)
    texts = np.arange(len(captions))
    by_text = retrieval_recall(scores, texts)
    # Less a text's mean over the images: short and common texts would come
    # first for every image.
    by_image = retrieval_recall(scores - scores.mean(axis=0), texts)
    return {
        name: (by_text if name.startswith("image") else by_image)[name]
        for name in by_text
    }


def measure_passes(
    captioner: "Captioner",
    features: np.ndarray,
    references: Mapping[int, Sequence[str]],
    *,
    passes: Sequence[int] = PASSES,
) -> list[PassesPoint]:
    """Measures CIDEr-D and time by the number of passes.

    Args:
        captioner: The captioner.
        features: (images, ...), in the order of `references`.
        references: Captions by people by image id.
        passes: Numbers of passes.

    Returns:
        A point for each; the time is that of writing all captions, embedding
        of the images left out.
    """
    # Traces the graph, which is no part of the time.
    captioner.caption_features(features[:32])
    points = []
    for number in passes:
        start = time.perf_counter()
        written = captioner.caption_features(features, passes=number)
        seconds = time.perf_counter() - start
        texts = [caption.text for caption in written]
        captions = dict(zip(references, texts, strict=True))
        scores = score_each_caption(captions, references).values()
        points.append(PassesPoint(number, float(np.mean([*scores])), seconds))
    return points
