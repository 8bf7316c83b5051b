import numpy as np
import pytest
from keras import ops

from bmt_keras.layers import ConceptHead

RNG = np.random.default_rng(6)
GRID = RNG.normal(size=(4, 2, 3, 5)).astype("float32")
PRIOR = np.array([0.5, 0.1, 0.0, 1.0, 0.25, 0.002], "float32")


def make_head(image=GRID, **options):
    head = ConceptHead(vocabulary_size=6, hidden_dim=7, **options)
    head.build(image.shape)
    head.adapt(PRIOR)
    return head


def logit(probability):
    probability = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(probability / (1 - probability))


@pytest.mark.parametrize("image", [GRID, GRID[:, 0], GRID[:, 0, 0]])
def test_logits_are_changes_of_the_priors(image):
    head = make_head(image)
    mean = RNG.normal(size=head.feature_norm.moving_mean.shape)
    head.feature_norm.moving_mean.assign(mean)
    cells = image.reshape(4, -1, 5)
    x = cells[:, 0]
    if image.ndim > 2:
        x = np.concatenate([cells.mean(1), cells.max(1)], -1)
    x = (x - mean) / np.sqrt(1 + 1e-3)
    x = np.maximum(x @ head.dense.kernel.numpy(), 0)
    expected = x @ head.changes.kernel.numpy() + logit(PRIOR)
    np.testing.assert_allclose(head(image), expected, rtol=1e-4)


def test_a_head_that_knows_nothing_gives_each_token_its_prior():
    head = make_head()
    head.changes.kernel.assign(ops.zeros((7, 6)))
    np.testing.assert_allclose(
        ops.sigmoid(head(GRID))[0], np.clip(PRIOR, 1e-6, 1), atol=1e-6
    )
    np.testing.assert_allclose(head.log_odds(head(GRID)), 0, atol=1e-2)


def test_log_odds_are_how_much_likelier_than_its_prior_a_token_is():
    head = make_head()
    logits = logit(np.array([[0.9, 0.2, 0.1, 1.0, 0.0, 0.004]]))
    expected = np.log(
        np.array([0.901, 0.201, 0.101, 1.001, 0.001, 0.005])
        / (PRIOR + np.float32(0.001))
    )
    np.testing.assert_allclose(
        head.log_odds(logits)[0], np.clip(expected, -3, 3), atol=1e-4
    )


def test_rarity_is_the_log_of_how_many_captions_have_one_with_the_token():
    expected = np.log([2, 10, 1000, 1, 4, 500])
    np.testing.assert_allclose(make_head().rarity(), expected, atol=1e-5)


def test_logits_are_float32_whatever_the_policy():
    head = make_head(dtype="mixed_float16")
    logits = head(GRID)
    assert logits.dtype == head.log_odds(logits).dtype == "float32"
    # float16 could not hold the log-odds of a probability of 0 or 1.
    assert np.isfinite(logits).all()


def test_dropout_and_batch_statistics_act_in_training_alone():
    head = make_head()
    kept = head(GRID)
    np.testing.assert_array_equal(head(GRID, training=False), kept)
    trained = head(GRID, training=True)
    assert np.any(trained != kept)
    assert np.any(head.feature_norm.moving_mean != 0)


def test_number_of_channels_must_be_known():
    with pytest.raises(ValueError, match=r"channels .*\(None, 4, None\)"):
        make_head(np.ones((1, 4, 5))).build((None, 4, None))
