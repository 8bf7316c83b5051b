import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding.choosing import draw_tokens

NO_BAN = tf.zeros((4,))
# Probabilities 0.5, 0.3, 0.15 and 0.05 of tokens 2, 0, 3 and 1.
LOGITS = tf.math.log(tf.constant([0.3, 0.05, 0.5, 0.15]))


def draw(count=1, *, temperature=1.0, top_p=1.0, seed=(0, 0), ban=NO_BAN):
    logits = tf.tile(LOGITS[None, None], (1, 4000, 1))
    tokens, log_probs = draw_tokens(
        logits,
        ban,
        count,
        temperature=temperature,
        top_p=top_p,
        noise_of=lambda size: tf.random.stateless_uniform(
            (1, 4000, size), seed
        ),
    )
    return tokens.numpy()[0], log_probs.numpy()[0]


def shares(tokens):
    return np.bincount(tokens, minlength=4) / len(tokens)


def test_draws_follow_the_probabilities():
    tokens, log_probs = draw()
    np.testing.assert_allclose(
        shares(tokens[:, 0]), [0.3, 0.05, 0.5, 0.15], atol=0.03
    )
    np.testing.assert_allclose(log_probs, LOGITS.numpy()[tokens], rtol=1e-5)


def test_temperature_sharpens_draws_and_leaves_scores():
    # Squares of the probabilities: 0.25, 0.09, 0.0225, 0.0025, over 0.365.
    tokens, log_probs = draw(temperature=0.5)
    np.testing.assert_allclose(
        shares(tokens[:, 0]), [0.247, 0.007, 0.685, 0.062], atol=0.03
    )
    np.testing.assert_allclose(log_probs, LOGITS.numpy()[tokens], rtol=1e-5)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, {2}), (0.6, {0, 2}), (0.9, {0, 2, 3})]
)
def test_top_p_keeps_the_likeliest_tokens(top_p, kept):
    tokens, _ = draw(top_p=top_p)
    assert set(tokens[:, 0]) == kept


def test_other_choices_follow_when_the_likeliest_run_out():
    tokens, _ = draw(count=4, top_p=0.6)
    assert {tuple(row[2:]) for row in tokens} == {(3, 1)}
    assert {tuple(row[:2]) for row in tokens} == {(0, 2), (2, 0)}


def test_banned_tokens_are_the_very_last_choice():
    ban = tf.constant([0.0, 0.0, -1e9, 0.0])
    tokens, _ = draw(count=4, top_p=0.3, ban=ban)
    assert set(tokens[:, -1]) == {2}


def test_a_seed_draws_the_same_again_and_another_one_does_not(
    decode, always, words_of
):
    predict = always({i: {5: 1.0} for i in range(8)})
    options = {"temperature": 1.0, "num_captions": 3}
    first, again, other = (
        words_of(decode(predict, [[4], [5]], seed=seed, **options))
        for seed in (3, 3, 4)
    )
    assert first == again != other


def test_captions_drawn_of_a_photo_differ(decode, always, words_of):
    # Two tokens for two places, and no repeat: "5 6" or "6 5".
    predict = always({i: {5: 9.0, 6: 9.0} for i in range(8)})
    for seed in range(5):
        written = decode(
            predict,
            [[2]],
            temperature=1.0,
            num_captions=2,
            seed=seed,
            length_candidates=10,
            controls={"length": tf.constant([2])},
        )
        assert sorted(words_of(written)) == [[5, 6], [6, 5]]


def test_copies_are_kept_only_where_nothing_else_is_left(
    decode, always, words_of
):
    predict = always({1: {5: 50.0}})
    written = decode(
        predict,
        [[1]],
        temperature=0.1,
        num_captions=2,
        controls={"length": tf.constant([1])},
    )
    assert words_of(written) == [[5], [5]]


def test_temperature_and_seed_need_no_new_trace(
    predictor_of, length_log_probs, always
):
    from bmt_keras.decoding import DecodingOptions, mask_predict

    traced = []
    model = always({1: {5: 3.0}})

    def predict(ids, mask):
        traced.append(1)
        return model(ids, mask)

    @tf.function
    def write(temperature, top_p, seed):
        options = DecodingOptions(
            temperature=temperature, top_p=top_p, seed=seed, passes=2
        )
        return mask_predict(
            predictor_of(predict), length_log_probs([3]), options=options
        )["token_ids"]

    texts = {
        tuple(write(tf.constant(t), tf.constant(p), tf.constant(s)).numpy()[0])
        for t, p, s in [(1.0, 1.0, 1), (9.0, 1.0, 2), (9.0, 0.9, 3)]
    }
    assert len(traced) == 1
    assert len(texts) > 1
