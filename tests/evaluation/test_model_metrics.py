import math

import numpy as np
import pytest

from bmt_keras.captioner import Calibration
from bmt_keras.captioner.calibration import MaskedGuesses
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


class Scorer:
    """In place of a captioner: scores that are given, (images, texts)."""

    def __init__(self, scores):
        self.scores = np.array(scores)

    def score_features(self, images, texts):
        return self.scores[images, list(map(int, texts))]

    def recall(self):
        count = len(self.scores)
        return model_metrics.measure_retrieval(
            self, np.arange(count), list(map(str, range(count)))
        )


def test_recall_matches_a_count_by_hand(monkeypatch):
    monkeypatch.setattr(model_metrics, "_RECALL_AT", (1, 2, 3))
    # Texts 0 and 1 find their image first, for text 2 all images are equal.
    # Less the texts' means of 0.4, 1.6 and 0.5, the images' own texts have
    # 0.5 and 0.2, both first, and 0, which comes after 0.1.
    scores = [[0.9, 1.3, 0.5], [0.1, 1.8, 0.5], [0.2, 1.7, 0.5]]
    assert Scorer(scores).recall() == pytest.approx(
        {
            "text_recall_at_1": 2 / 3,
            "text_recall_at_2": 1,
            "text_recall_at_3": 1,
            "image_recall_at_1": 2 / 3,
            "image_recall_at_2": 2 / 3,
            "image_recall_at_3": 1,
        }
    )


@pytest.mark.parametrize("score", [0.0, np.nan])
def test_scores_that_tell_nothing_earn_nothing(score):
    recall = Scorer(np.full((20, 20), score)).recall()
    assert set(recall.values()) == {0.0}
    assert len(recall) == 6


def test_passes_have_a_point_each(tiny_captioner, val, monkeypatch):
    monkeypatch.setattr(model_metrics, "PASSES", (1, 3))
    photos, features = val
    references = {photo.image_id: photo.captions for photo in photos}
    points = model_metrics.measure_passes(tiny_captioner, features, references)
    assert [point.passes for point in points] == [1, 3]
    assert all(point.seconds > 0 for point in points)


def test_metrics_file_is_sorted_and_rounded(tmp_path):
    path = tmp_path / "metrics.json"
    model_metrics.write_metrics(
        path, {"b": 2 / 3, "photos": 5000, "a": np.float32(0.5), "c": 1e-9}
    )
    assert path.read_text() == (
        '{\n  "a": 0.5,\n  "b": 0.666667,\n  "c": 0.0,\n  "photos": 5000\n}\n'
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_metrics_that_are_not_finite_are_not_written(tmp_path, value):
    with pytest.raises(ValueError, match=r"finite.*cider_d="):
        model_metrics.write_metrics(tmp_path / "m.json", {"cider_d": value})
    assert list(tmp_path.iterdir()) == []
