"""Confidences that say how often they are right."""

from bmt_keras.captioner import Captioner
from bmt_keras.captioner_figures import (
    guess_masked_tokens,
    one_caption_each,
)
from bmt_keras.evaluation import Calibration, fit_calibration
from bmt_keras.training.data import TrainingData

_PHOTOS = 1000  # at most, with one caption each


def calibrate(captioner: Captioner, data: TrainingData) -> Calibration:
    """Fits the captioner's confidences on the validation photos.

    Args:
        captioner: The captioner, whose `calibration` is set.
        data: Its validation side is read: a caption of each photo.

    Returns:
        The calibration.
    """
    rows = data.val_features.rows
    photos = [photo for photo in data.val if photo.image_id in rows][:_PHOTOS]
    guesses = guess_masked_tokens(
        captioner,
        data.val_features.array[[rows[photo.image_id] for photo in photos]],
        # Others than those that evaluation looks at.
        one_caption_each(photos, first=1),
        seed=1,
    )
    captioner.calibration = fit_calibration(guesses.log_probs, guesses.correct)
    return captioner.calibration
