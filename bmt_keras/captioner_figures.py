"""Figures of a captioner that need its model, not only its captions."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from bmt_keras.captioner import Calibration, Captioner
from bmt_keras.captioner.calibration import MaskedGuesses
from bmt_keras.evaluation import (
    ReliabilityBin,
    calibration_error,
    masked_accuracy,
    reliability_bins,
    retrieval_recall,
    score_captions,
)
from bmt_keras.evaluation.charts import PassesPoint

RETRIEVAL_PHOTOS = 100
PASSES = (1, 2, 4, 8, 12)


def measure_masked_tokens(
    guesses: MaskedGuesses, calibration: Calibration
) -> tuple[dict[str, float], list[ReliabilityBin]]:
    """Measures how often guesses are right, and whether confidence says so.

    Args:
        guesses: Of `captioner.calibration.guess_masked_tokens`.
        calibration: The captioner's.

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
        "masked_accuracy": masked_accuracy(
            guesses.predictions,
            guesses.labels,
            masked=np.ones(len(guesses.labels), bool),
        ),
        "calibration_error": calibration_error(bins),
        "calibration_error_raw": calibration_error(raw),
    }
    return figures, bins


def measure_retrieval(
    captioner: Captioner, features: np.ndarray, captions: Sequence[str]
) -> dict[str, float]:
    """Measures recall by `Captioner.score` among photos with a caption each.

    Args:
        captioner: The captioner.
        features: (photos, ...).
        captions: A caption by people for each photo.

    Returns:
        `photo_recall_at_1`, `_5` and `_10`: the share of captions whose photo
        is among the 1, 5 and 10 photos under which it scores best; and
        `text_recall_at_…`: of photos whose caption is among those that score
        best. A text's score is taken less its mean over the photos there, or
        short and common texts would come first for every photo.
    """
    scores = np.stack(
        [
            captioner.score_features(features, [text] * len(features))
            for text in captions
        ],
        axis=1,
    )  # (photos, texts)
    texts = np.arange(len(captions))
    by_text = retrieval_recall(scores, texts)
    by_photo = retrieval_recall(scores - scores.mean(axis=0), texts)
    return {
        name: (by_text if name.startswith("photo") else by_photo)[name]
        for name in by_text
    }


def measure_passes(
    captioner: Captioner,
    features: np.ndarray,
    references: Mapping[int, Sequence[str]],
    *,
    passes: Sequence[int] = PASSES,
) -> list[PassesPoint]:
    """Measures CIDEr-D and time by the number of passes.

    Args:
        captioner: The captioner.
        features: (photos, ...), in the order of `references`.
        references: Captions by people by photo id.
        passes: Numbers of passes.

    Returns:
        A point for each; the time is that of writing all captions, embedding
        of the photos left out.
    """
    captioner.caption_features(features[:32])  # traces
    points = []
    for number in passes:
        start = time.perf_counter()
        written = captioner.caption_features(features, passes=number)
        seconds = time.perf_counter() - start
        texts = [caption.text for caption in written]
        scores = score_captions(
            dict(zip(references, texts, strict=True)), references
        )
        points.append(PassesPoint(number, scores["cider_d"], seconds))
    return points
