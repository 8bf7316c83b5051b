"""Figures of a captioner that need its model, not only its captions."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bmt_keras.captioner import Captioner
from bmt_keras.captioner.texts import pad_rows
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.evaluation import (
    Calibration,
    ReliabilityBin,
    calibration_error,
    masked_accuracy,
    reliability_bins,
    retrieval_recall,
    score_captions,
)
from bmt_keras.evaluation.charts import PassesPoint

MASKED_SHARE = 0.15
RETRIEVAL_PHOTOS = 100
PASSES = (1, 2, 4, 8, 12)


@dataclass(frozen=True)
class MaskedGuesses:
    """A captioner's guesses at masked tokens of captions by people.

    Attributes:
        predictions: int, (tokens,), the likeliest tokens.
        labels: int, (tokens,), the tokens that stood there.
        log_probs: float, (tokens,), of the predictions, in nats.
    """

    predictions: np.ndarray
    labels: np.ndarray
    log_probs: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """bool, (tokens,)."""
        return self.predictions == self.labels


def guess_masked_tokens(
    captioner: Captioner,
    features: np.ndarray,
    captions: Sequence[str],
    *,
    share: float = MASKED_SHARE,
    seed: int = 0,
    batch_size: int = 64,
) -> MaskedGuesses:
    """Masks a share of the tokens of captions and lets the model guess them.

    Args:
        captioner: The captioner.
        features: (captions, ...), as `Captioner.caption_features` takes them.
        captions: A caption by people for each row of the features.
        share: Share of masked tokens; at least one a caption.
        seed: Seed of the masks.
        batch_size: Captions at once.

    Returns:
        The guesses, in the captions' order.
    """
    rng = np.random.default_rng(seed)
    token_ids = _encode(captioner, captions)
    words = ~np.isin(token_ids, captioner.tokenizer.special_token_ids)
    counts = np.maximum(np.rint(share * words.sum(axis=1)), 1)
    order = np.where(words, rng.random(words.shape), 2.0)
    masked = words & (order.argsort(axis=1).argsort(axis=1) < counts[:, None])
    predictions, log_probs = [], []
    for start in range(0, len(token_ids), batch_size):
        rows = slice(start, start + batch_size)
        shown = np.where(
            masked[rows], captioner.tokenizer.mask_token_id, token_ids[rows]
        )
        tokens, scores = captioner.guess_tokens(features[rows], shown)
        scores = np.minimum(scores, 0.0)
        predictions.append(tokens[masked[rows]])
        log_probs.append(scores[masked[rows]])
    return MaskedGuesses(
        np.concatenate(predictions),
        token_ids[masked],
        np.concatenate(log_probs),
    )


def one_caption_each(
    photos: Sequence[CaptionedImage], first: int = 0
) -> list[str]:
    """A caption of each photo, another one from photo to photo.

    Some data sets sort a photo's captions, the longest first: all first ones,
    or all last ones, would be captions of one kind.

    Args:
        photos: Photos with captions.
        first: Number of the caption of the first photo.
    """
    return [
        photo.captions[(first + number) % len(photo.captions)]
        for number, photo in enumerate(photos)
    ]


def measure_masked_tokens(
    guesses: MaskedGuesses, calibration: Calibration
) -> tuple[dict[str, float], list[ReliabilityBin]]:
    """Measures how often guesses are right, and whether confidence says so.

    Args:
        guesses: Of `guess_masked_tokens`.
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


def _encode(captioner: Captioner, captions: Sequence[str]) -> np.ndarray:
    """Captions by people as training saw them: int32, (captions, length)."""
    rows = captioner.tokenizer.encode(
        captioner.plain_captions(captions),
        sequence_length=captioner.settings.text.sequence_length,
    )
    return pad_rows(rows, captioner.tokenizer.pad_token_id)
