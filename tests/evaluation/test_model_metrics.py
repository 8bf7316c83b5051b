import numpy as np
import pytest

from bmt_keras.captioner import Calibration
from bmt_keras.captioner.guesses import MaskedGuesses
from bmt_keras.evaluation import model_metrics


@pytest.fixture(scope="module")
def val(tiny_captioner, sample_photos):
    photos = sample_photos[1]
    features = tiny_captioner.read_features(photo.path for photo in photos)
    return photos, features


def test_accuracy_and_calibration_are_those_of_the_guesses():
    guesses = MaskedGuesses(
        np.array([5, 6, 7, 8]), np.array([5, 6, 7, 9]), np.log([0.75] * 4)
    )
    measured, bins = model_metrics.measure_masked_tokens(guesses, Calibration())
    assert measured["masked_accuracy"] == 0.75
    assert measured["calibration_error"] == pytest.approx(0)
    assert sum(each.num_guesses for each in bins) == 4
    cold, _ = model_metrics.measure_masked_tokens(guesses, Calibration(0.5))
    assert cold["calibration_error"] == pytest.approx(0.9 - 0.75, abs=1e-6)
    assert cold["calibration_error_raw"] == pytest.approx(0)


def test_retrieval_is_measured_by_the_captioner_s_score(tiny_captioner, val):
    photos, features = val
    captions = [photo.captions[0] for photo in photos[:4]]
    measured = model_metrics.measure_retrieval(
        tiny_captioner, features[:4], captions
    )
    matrix = np.array(
        [
            [score.mean for score in tiny_captioner.score(photo.path, captions)]
            for photo in photos[:4]
        ]
    )
    hits = (matrix.argmax(axis=0) == np.arange(4)).mean()
    assert measured["image_recall_at_1"] == pytest.approx(hits)
    assert measured["text_recall_at_5"] == 1


def test_passes_have_a_point_each(tiny_captioner, val):
    photos, features = val
    references = {photo.image_id: photo.captions for photo in photos}
    points = model_metrics.measure_passes(
        tiny_captioner, features, references, passes=(1, 3)
    )
    assert [point.passes for point in points] == [1, 3]
    assert all(point.seconds > 0 for point in points)
