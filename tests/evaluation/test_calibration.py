import numpy as np
import pytest

from bmt_keras.evaluation import (
    ReliabilityBin,
    apply_temperature,
    calibration_error,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)


def test_calibration_error_matches_a_count_by_hand():
    confidences = [0.95, 0.91, 0.93, 0.95, 0.55, 0.53]
    correct = [True, True, True, False, False, False]
    # Accuracies 3/4 and 0; mean confidences 0.935 and 0.54.
    expected = 4 / 6 * (0.935 - 0.75) + 2 / 6 * 0.54
    error = expected_calibration_error(confidences, correct)
    assert error == pytest.approx(expected)
    one_bin = expected_calibration_error(confidences, correct, num_bins=1)
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
        expected_calibration_error(*pairs, num_bins=num_bins)


def test_temperature_matches_one_found_by_hand():
    # All at 0.9, three of four right: sigmoid(ln 9 / T) must be 3/4, so T = 2.
    log_probs = np.log([0.9] * 4)
    temperature = fit_temperature(log_probs, [True, True, True, False])
    assert temperature == pytest.approx(2)
    scaled = np.exp(apply_temperature(log_probs, temperature))
    np.testing.assert_allclose(scaled, 0.75)


def test_temperature_recovers_the_one_that_spoilt_the_confidences():
    generator = np.random.default_rng(0)
    odds = generator.normal(1, 2, 40_000)
    correct = generator.random(odds.size) < 1 / (1 + np.exp(-odds))
    log_probs = -np.log1p(np.exp(-3 * odds))
    temperature = fit_temperature(log_probs, correct)
    assert temperature == pytest.approx(3, rel=0.05)
    scaled = np.exp(apply_temperature(log_probs, temperature))
    assert expected_calibration_error(scaled, correct) < 0.01
    assert expected_calibration_error(np.exp(log_probs), correct) > 0.1


def test_no_other_temperature_has_a_lower_loss():
    generator = np.random.default_rng(1)
    log_probs = np.log(generator.random(200))
    correct = generator.random(200) < 0.5 + 0.3 * np.exp(log_probs)

    def loss(temperature):
        right = apply_temperature(log_probs, temperature)
        return -np.mean(np.where(correct, right, np.log(-np.expm1(right))))

    best = loss(fit_temperature(log_probs, correct))
    assert best <= min(map(loss, np.geomspace(0.05, 20, 200))) + 1e-9


@pytest.mark.parametrize(("correct", "bound"), [(False, 20), (True, 0.05)])
def test_temperature_stays_within_bounds(correct, bound):
    log_probs = np.log([0.9, 0.8])
    temperature = fit_temperature(log_probs, [correct] * 2)
    assert temperature == pytest.approx(bound)


def test_certain_and_impossible_tokens_stay_finite():
    log_probs = np.array([0.0, -np.inf, -1e-30])
    assert np.isfinite(fit_temperature(log_probs, [True, False, False]))
    scaled = apply_temperature(log_probs, 2)
    np.testing.assert_allclose(scaled[[0, 2]], -np.log1p(np.exp(-8)))
    assert scaled[1] == pytest.approx(-8, abs=1e-3)


def test_temperature_of_one_changes_nothing():
    log_probs = np.log([[0.2, 0.5], [0.9, 0.99]])
    np.testing.assert_allclose(apply_temperature(log_probs, 1), log_probs)


def test_bad_log_probabilities_are_refused():
    with pytest.raises(ValueError, match="at most 0"):
        fit_temperature([0.5], [True])
    with pytest.raises(ValueError, match="must hold a token"):
        fit_temperature([], [])
    with pytest.raises(ValueError, match=r"above 0. Received: 0"):
        apply_temperature([-1.0], 0)
