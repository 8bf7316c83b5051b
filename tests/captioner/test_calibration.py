import numpy as np
import pytest

from bmt_keras.captioner import Calibration
from bmt_keras.captioner.calibration import (
    fit_calibration,
    guess_masked_tokens,
)


def sigmoid(odds):
    return 1 / (1 + np.exp(-np.asarray(odds)))


def calibration_error(confidences, correct):
    """Expected calibration error in ten bins."""
    bins = np.ceil(confidences * 10)
    gaps = correct - confidences
    return sum(abs(gaps[bins == b].sum()) for b in range(1, 11)) / len(gaps)


def test_confidences_of_one_height_become_the_share_of_hits():
    # Platt's targets: 3 of 4 right count as (3 * 4/5 + 1/3) / 4.
    log_probs = np.log([0.9] * 4)
    fitted = fit_calibration(log_probs, [True, True, True, False])
    expected = (3 * 4 / 5 + 1 / 3) / 4
    np.testing.assert_allclose(np.exp(fitted.apply(log_probs)), expected)


def test_fit_recovers_what_spoilt_the_confidences():
    generator = np.random.default_rng(0)
    odds = generator.normal(1, 2, 40_000)
    correct = generator.random(odds.size) < sigmoid(odds)
    spoilt = np.log(sigmoid(3 * odds - 1.2))
    fitted = fit_calibration(spoilt, correct)
    assert fitted.temperature == pytest.approx(3, rel=0.05)
    assert fitted.offset == pytest.approx(0.4, abs=0.05)
    confidences = np.exp(fitted.apply(spoilt))
    assert calibration_error(confidences, correct) < 0.01
    assert calibration_error(np.exp(spoilt), correct) > 0.1


def test_no_other_calibration_has_a_lower_loss():
    generator = np.random.default_rng(1)
    log_probs = np.log(generator.random(200))
    correct = generator.random(200) < 0.5 + 0.3 * np.exp(log_probs)
    n, m = correct.sum(), (~correct).sum()
    targets = np.where(correct, (n + 1) / (n + 2), 1 / (m + 2))

    def loss(calibration):
        right = calibration.apply(log_probs)
        wrong = np.log(-np.expm1(right))
        return -np.mean(targets * right + (1 - targets) * wrong)

    best = fit_calibration(log_probs, correct)
    for temperature in (0.8, 0.99, 1.01, 1.3):
        for shift in (-0.2, -0.01, 0, 0.01, 0.2):
            other = Calibration(
                best.temperature * temperature, best.offset + shift
            )
            assert loss(best) <= loss(other) + 1e-12


@pytest.mark.parametrize("correct", [True, False])
def test_guesses_all_alike_keep_confidences_finite(correct):
    log_probs = np.log([0.9, 0.8, 0.3])
    fitted = fit_calibration(log_probs, [correct] * 3)
    assert 0.05 <= fitted.temperature <= 20
    confidences = np.exp(fitted.apply(log_probs))
    assert (confidences > 0).all()
    assert (confidences < 1).all()
    assert (confidences.mean() > 0.5) == correct


def test_confidence_that_tells_the_wrong_thing_is_flattened():
    generator = np.random.default_rng(2)
    odds = generator.normal(0, 2, 2000)
    correct = generator.random(odds.size) < sigmoid(-odds)
    fitted = fit_calibration(np.log(sigmoid(odds)), correct)
    assert fitted.temperature == pytest.approx(20)
    confidences = np.exp(fitted.apply(np.log(sigmoid(odds))))
    assert confidences.mean() == pytest.approx(correct.mean(), abs=0.01)


def test_certain_and_impossible_tokens_stay_finite():
    log_probs = np.array([0.0, -np.inf, -1e-30])
    fitted = fit_calibration(log_probs, [True, False, False])
    assert np.isfinite([fitted.temperature, fitted.offset]).all()
    scaled = Calibration(2.0).apply(log_probs)
    np.testing.assert_allclose(scaled[[0, 2]], -np.log1p(np.exp(-8)))
    assert scaled[1] == pytest.approx(-8, abs=1e-3)


def test_default_changes_nothing():
    log_probs = np.log([[0.2, 0.5], [0.9, 0.99]])
    np.testing.assert_allclose(Calibration().apply(log_probs), log_probs)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="at most 0"):
        fit_calibration([0.5], [True])
    with pytest.raises(ValueError, match=r"above 0. Received: 0"):
        Calibration(0)


# === Guesses at masked tokens ===


@pytest.fixture(scope="module")
def val(tiny_captioner, sample_photos):
    photos = sample_photos[1]
    features = tiny_captioner.read_features(photo.path for photo in photos)
    return features, [photo.captions[0] for photo in photos]


def test_guesses_are_at_masked_words_alone(tiny_captioner, val):
    guesses = guess_masked_tokens(tiny_captioner, *val, share=0.3)
    ids = tiny_captioner.tokenizer.encode(val[1])
    counts = [max(round(0.3 * (len(row) - 2)), 1) for row in ids]
    assert len(guesses.labels) == sum(counts)
    special = tiny_captioner.tokenizer.special_token_ids
    assert not np.isin(guesses.labels, special).any()
    assert not np.isin(guesses.predictions, special).any()
    assert (guesses.log_probs <= 0).all()


def test_every_word_may_be_masked(tiny_captioner, val):
    guesses = guess_masked_tokens(tiny_captioner, *val, share=1.0)
    rows = tiny_captioner.tokenizer.encode(val[1])
    assert guesses.labels.tolist() == [t for row in rows for t in row[1:-1]]


def test_masks_depend_on_the_seed_alone(tiny_captioner, val):
    one, same, other = (
        guess_masked_tokens(tiny_captioner, *val, seed=seed).labels.tolist()
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_confidence_of_written_captions_follows_the_calibration(
    tiny_captioner, val
):
    captioner, (features, _) = tiny_captioner, val
    before = captioner.caption(features)[0]
    assert before.confidences == pytest.approx(np.exp(before.token_scores))
    assert before.confidence == pytest.approx(np.exp(before.score), rel=1e-4)
    captioner.calibration = Calibration(2.0)
    try:
        after = captioner.caption(features)[0]
    finally:
        captioner.calibration = Calibration()
    assert after.text == before.text
    assert all(
        abs(new - 0.5) <= abs(old - 0.5) + 1e-9
        for new, old in zip(after.confidences, before.confidences, strict=True)
    )
