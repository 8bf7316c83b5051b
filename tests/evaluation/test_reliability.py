import numpy as np
import pytest

from bmt_keras.evaluation import calibration_error, reliability_bins


def test_calibration_error_matches_a_count_by_hand():
    confidences = [0.95, 0.91, 0.93, 0.95, 0.55, 0.53]
    correct = [True, True, True, False, False, False]
    bins = reliability_bins(confidences, correct)
    assert np.array(bins) == pytest.approx(
        np.array([(2, 0.54, 0), (4, 0.935, 3 / 4)])
    )
    expected = 4 / 6 * (0.935 - 0.75) + 2 / 6 * 0.54
    assert calibration_error(bins) == pytest.approx(expected)


def test_bins_hold_their_upper_edge_and_the_first_one_0():
    bins = reliability_bins(np.arange(11) / 10, [1, *[0] * 10])
    assert [each.num_guesses for each in bins] == [2] + [1] * 9
    assert bins[0] == (2, 0.05, 0.5)
    assert bins[9] == (1, 1, 0)
