from pathlib import Path

import pytest

from bmt_keras.data.coco import Photo
from bmt_keras.training.consensus import consensus_weights

PHOTOS = [
    Photo(
        1,
        Path("1.jpg"),
        ("a dog runs fast", "a dog runs", "wow what weather"),
    ),
    Photo(2, Path("2.jpg"), ("a red car", "a red bus")),
]


def test_caption_that_others_agree_with_weighs_most():
    weights = consensus_weights(PHOTOS, 2.0)[1]
    assert weights[2] == min(weights) < 0.8
    assert weights[1] > 1


def test_weights_of_a_photo_have_the_mean_one():
    for each in consensus_weights(PHOTOS, 3.0).values():
        assert sum(each) / len(each) == pytest.approx(1)


def test_strength_zero_weighs_all_alike():
    assert consensus_weights(PHOTOS, 0.0) == {1: [1, 1, 1], 2: [1, 1]}
