import numpy as np
import pytest

from bmt_keras.evaluation import retrieval_recall


def test_recall_matches_a_count_by_hand():
    # Texts 0 and 1 belong to photo 0, text 2 to photo 1, text 3 to photo 2.
    scores = [
        [0.1, 0.8, 0.9, 0.0],  # its best own text is second
        [0.3, 0.2, 0.7, 0.6],  # first
        [0.9, 0.5, 0.4, 0.3],  # fourth
    ]
    # Photos of texts: second of 0.9 0.3 0.1: third; first; second; third.
    recall = retrieval_recall(scores, [0, 0, 1, 2], ks=(1, 2, 3))
    assert recall == pytest.approx(
        {
            "text_recall_at_1": 1 / 3,
            "text_recall_at_2": 2 / 3,
            "text_recall_at_3": 2 / 3,
            "image_recall_at_1": 1 / 4,
            "image_recall_at_2": 3 / 4,
            "image_recall_at_3": 1,
        }
    )


def test_equal_scores_earn_nothing():
    recall = retrieval_recall(np.zeros((20, 20)), np.arange(20))
    assert set(recall.values()) == {0.0}
    assert len(recall) == 6


def test_own_texts_do_not_stand_in_each_others_way():
    scores = np.repeat(np.eye(3), 5, axis=1)
    recall = retrieval_recall(scores, np.repeat(np.arange(3), 5))
    assert set(recall.values()) == {1.0}


@pytest.mark.parametrize(
    ("scores", "rows", "ks", "message"),
    [
        (np.zeros((2, 3)), [0, 1], (1,), r"\(2, 3\) and \(2,\)"),
        (np.zeros(2), [0, 1], (1,), "shape"),
        ([[np.nan]], [0], (1,), "NaN"),
        (np.zeros((2, 2)), [0, 0], (1,), "1 rows named, 2 rows"),
        (np.zeros((2, 2)), [0, 2], (1,), "name every row"),
        (np.zeros((0, 0)), [], (1,), "name every row"),
        ([[1.0]], [0], (0,), "`ks` must be at least 1"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(scores, rows, ks, message):
    with pytest.raises(ValueError, match=message):
        retrieval_recall(scores, rows, ks=ks)
