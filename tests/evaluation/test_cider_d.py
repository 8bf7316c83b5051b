import numpy as np
import pytest

from bmt_keras.evaluation import score_each_caption
from bmt_keras.evaluation.cider_d import CiderD

REFERENCES = {
    1: ["A dog runs on the grass.", "a brown dog running", "the dog plays"],
    2: ["a man rides a horse", "man on a horse on a beach"],
    3: ["two children play football", "Kids playing with a ball."],
    4: ["a red car"],
}
PREDICTIONS = {
    1: "a dog runs on the beach on the grass",
    2: "a man rides a horse",
    3: "",
    4: "a blue bus, a blue bus",
}


def test_scores_are_those_of_the_evaluation():
    cider = CiderD(REFERENCES)
    expected = score_each_caption(PREDICTIONS, REFERENCES)
    for image_id, caption in PREDICTIONS.items():
        score = cider.score(image_id, caption)
        assert score == pytest.approx(expected[image_id], abs=1e-9)


def test_unknown_photo_is_an_error():
    with pytest.raises(KeyError):
        CiderD(REFERENCES).score(9, "a dog")


def test_scores_are_finite_for_a_single_photo():
    assert np.isfinite(CiderD({1: ["a dog"]}).score(1, "a dog"))
