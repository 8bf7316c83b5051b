"""Confidences that say how often they are right."""

from bmt_keras.captioner import Captioner
from bmt_keras.captioner_figures import guess_masked_tokens
from bmt_keras.evaluation import fit_temperature
from bmt_keras.training.data import TrainingData

_PHOTOS = 1000  # at most, with one caption each


def calibrate(captioner: Captioner, data: TrainingData) -> float:
    """Fits the captioner's temperature on the validation photos.

    Args:
        captioner: The captioner, whose `temperature` is set.
        data: Its validation side is read: the last caption of each photo.

    Returns:
        The temperature.
    """
    rows = data.val_features.rows
    photos = [photo for photo in data.val if photo.image_id in rows][:_PHOTOS]
    guesses = guess_masked_tokens(
        captioner,
        data.val_features.array[[rows[photo.image_id] for photo in photos]],
        [photo.captions[-1] for photo in photos],
        seed=1,
    )
    captioner.temperature = fit_temperature(guesses.log_probs, guesses.correct)
    return captioner.temperature
