import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import DecodingOptions, mask_predict
from bmt_keras.decoding.mask_predict import draw_tokens

# Of tokens 0 to 3; the likeliest first, as decoding has them.
PROBABILITIES = np.array([0.3, 0.05, 0.5, 0.15], np.float32)
TOKENS = np.argsort(-PROBABILITIES)


def draw(count=1, *, temperature=1.0, top_p=1.0, banned=()):
    log_probs = np.log(PROBABILITIES)
    log_probs[list(banned)] = -1e9
    tokens = np.argsort(-log_probs)
    shape = (1, 1, 4000, 4)
    tokens, log_probs = draw_tokens(
        tf.broadcast_to(tf.constant(tokens, tf.int32), shape),
        tf.broadcast_to(tf.constant(log_probs[tokens]), shape),
        count,
        options=DecodingOptions(temperature=temperature, top_p=top_p),
        noise=tf.random.stateless_uniform(shape, (0, 0)),
    )
    return tokens.numpy()[0, 0], log_probs.numpy()[0, 0]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, PROBABILITIES),
        # Squares of the probabilities: 0.09, 0.0025, 0.25, 0.0225, over 0.365.
        (0.5, [0.247, 0.007, 0.685, 0.062]),
    ],
)
def test_draws_follow_the_probabilities(temperature, expected):
    tokens, log_probs = draw(temperature=temperature)
    shares = np.bincount(tokens[:, 0], minlength=4) / len(tokens)
    np.testing.assert_allclose(shares, expected, atol=0.03)
    # The scores are without temperature.
    np.testing.assert_allclose(
        log_probs, np.log(PROBABILITIES)[tokens], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, {2}), (0.6, {0, 2}), (0.9, {0, 2, 3})]
)
def test_top_p_keeps_the_likeliest_tokens(top_p, kept):
    tokens, _ = draw(top_p=top_p)
    assert set(tokens[:, 0]) == kept


def test_other_choices_follow_when_the_likeliest_run_out():
    tokens, _ = draw(count=4, top_p=0.6)
    assert {tuple(each[2:]) for each in tokens} == {(3, 1)}
    assert {tuple(each[:2]) for each in tokens} == {(0, 2), (2, 0)}


def test_banned_tokens_are_the_very_last_choice():
    tokens, _ = draw(count=4, top_p=0.3, banned=[2])
    assert set(tokens[:, -1]) == {2}


def test_a_seed_draws_the_same_again_and_another_one_does_not(
    decode, always, tokens_of
):
    predict = always({i: {5: 1.0} for i in range(8)})
    options = {"temperature": 1.0, "num_captions": 3}
    first, again, other = (
        tokens_of(decode(predict, [[4], [5]], seed=seed, **options))
        for seed in (3, 3, 4)
    )
    assert first == again != other


@pytest.mark.parametrize("seed", range(5))
def test_captions_drawn_of_an_image_differ(decode, always, tokens_of, seed):
    # Two tokens for two positions, and no repeat: "5 6" or "6 5".
    written = decode(
        always({i: {5: 9.0, 6: 9.0} for i in range(8)}),
        [[2]],
        temperature=1.0,
        num_captions=2,
        seed=seed,
        length_candidates=10,
        controls={"length_bounds": [2, 2]},
    )
    assert sorted(tokens_of(written)) == [[5, 6], [6, 5]]


def test_copies_are_kept_only_where_nothing_else_is_left(
    decode, always, tokens_of
):
    written = decode(
        always({1: {5: 50.0}}),
        [[1]],
        temperature=0.1,
        num_captions=2,
        controls={"length_bounds": [1, 1]},
    )
    assert tokens_of(written) == [[5], [5]]


def test_temperature_and_seed_need_no_new_trace(
    predictor_of, length_log_probs, always, compiled
):
    def predict(temperature, top_p, seed):
        options = DecodingOptions(
            temperature=temperature, top_p=top_p, seed=seed, passes=2
        )
        model = always({1: {5: 3.0}})
        predictor = predictor_of(model, length_log_probs([3]))
        return mask_predict(predictor, options=options)

    inputs = ((), "float32"), ((), "float32"), ((), "int32")
    write, traced = compiled(predict, *inputs)
    texts = {
        tuple(write(*controls)["token_ids"].numpy().ravel())
        for controls in [(1.0, 1.0, 1), (9.0, 1.0, 2), (9.0, 0.9, 3)]
    }
    assert len(traced) == 1
    assert len(texts) > 1
