import numpy as np
import pytest

from bmt_keras.evaluation import (
    ReliabilityBin,
    calibration_error,
    reliability_bins,
)


def test_calibration_error_matches_a_count_by_hand():
    confidences = [0.95, 0.91, 0.93, 0.95, 0.55, 0.53]
    correct = [True, True, True, False, False, False]
    # Accuracies 3/4 and 0; mean confidences 0.935 and 0.54.
    expected = 4 / 6 * (0.935 - 0.75) + 2 / 6 * 0.54
    error = calibration_error(reliability_bins(confidences, correct))
    assert error == pytest.approx(expected)
    one_bin = calibration_error(
        reliability_bins(confidences, correct, num_bins=1)
    )
    assert one_bin == pytest.approx(np.mean(confidences) - 0.5)


def test_bins_hold_their_upper_edge():
    bins = reliability_bins([0, 0.5, 0.51, 1], [1, 0, 1, 1], num_bins=2)
    assert bins == [
        ReliabilityBin(0, 0.5, 2, 0.25, 0.5),
        ReliabilityBin(0.5, 1, 2, 0.755, 1),
    ]
    tenths = reliability_bins(np.arange(11) / 10, np.ones(11))
    assert [each.count for each in tenths] == [2] + [1] * 9


def test_empty_bins_are_kept_and_cost_nothing():
    bins = reliability_bins([0.9], [True], num_bins=2)
    assert bins[0] == ReliabilityBin(0, 0.5, 0, 0.25, 0)
    assert calibration_error(bins) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [True], 0), "`num_bins` must be at least 1"),
        (([1.5], [True], 2), r"in \[0, 1\].*1.5"),
        (([np.nan], [True], 2), r"in \[0, 1\]"),
        (([0.5, 0.5], [True], 2), r"shape.*\(2,\) and \(1,\)"),
        (([], [], 2), "must hold a guess"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(arguments, message):
    *pairs, num_bins = arguments
    with pytest.raises(ValueError, match=message):
        calibration_error(reliability_bins(*pairs, num_bins=num_bins))
