"""Confidences that say how often they are right."""

from bmt_keras.captioner import Calibration, Captioner
from bmt_keras.captioner.calibration import (
    fit_calibration,
    guess_masked_tokens,
    one_caption_each,
)
from bmt_keras.training.data import TrainingData

_IMAGES = 1000  # at most, with one caption each


def calibrate(captioner: Captioner, data: TrainingData) -> Calibration:
    """Fits and sets a captioner's calibration on the validation images."""
    rows = data.val_features.rows
    images = [each for each in data.val if each.image_id in rows][:_IMAGES]
    guesses = guess_masked_tokens(
        captioner,
        data.val_features.array[[rows[each.image_id] for each in images]],
        # Others than those that evaluation looks at.
        one_caption_each(images, first=1),
        seed=1,
    )
    captioner.calibration = fit_calibration(guesses.log_probs, guesses.correct)
    return captioner.calibration
