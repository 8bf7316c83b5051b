import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import guess_tokens, mask_candidates, score_tokens


def test_pseudo_log_likelihood_masks_each_token_in_turn(predictor_of):
    seen = []

    def predict(ids, mask):
        seen.append(ids.numpy().tolist())
        # The logit of token 5 is the sum of what can be seen.
        visible = tf.reduce_sum(tf.cast(ids, tf.float32), axis=-1)
        return visible[..., None, None] / 10 * tf.one_hot([5], 12) + tf.zeros(
            (*ids.shape, 12)
        )

    token_ids = tf.constant([[2, 5, 6, 3], [2, 5, 3, 0]])
    scores = score_tokens(predictor_of(predict), token_ids)
    assert seen == [
        [[[2, 4, 6, 3], [2, 5, 4, 3]], [[2, 4, 3, 0], [2, 5, 4, 0]]]
    ]

    def log_prob(visible, logit):
        return logit - np.log(np.exp(visible / 10) + 11)

    expected = [
        [0, log_prob(15, 1.5), log_prob(14, 0), 0],
        [0, log_prob(9, 0.9), 0, 0],
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    # As two captions of one image.
    both = score_tokens(predictor_of(predict), token_ids[None])
    np.testing.assert_allclose(both, [expected], rtol=1e-5)
    assert np.shape(seen[1]) == (1, 4, 4)


@pytest.fixture
def predictor(predictor_of, always):
    """At position 1 token 9 is likeliest, which goes on with a word."""
    model = always({1: {9: 5.0, 6: 4.0, 2: 9.0}, 2: {7: 3.0}, 3: {5: 2.0}})
    return predictor_of(model, continuing=(9,))


def test_the_likeliest_token_of_each_position_is_guessed(predictor):
    token_ids = tf.constant([[2, 4, 7, 3], [2, 4, 3, 0]])
    tokens, log_probs = guess_tokens(predictor, token_ids)
    assert tokens[:, 1:3].numpy().tolist() == [[9, 7], [9, 7]]
    total = np.log(np.exp([5.0, 4.0, 9.0]).sum() + 9)
    np.testing.assert_allclose(log_probs[:, 1], [5 - total] * 2, rtol=1e-5)


def test_candidates_of_masks_begin_words(predictor):
    token_ids = tf.constant([[2, 4, 5, 4, 3], [2, 8, 4, 3, 0]])
    tokens, probabilities = mask_candidates(
        predictor, token_ids, count=2, max_caption_tokens=3
    )
    # The first mask's other tokens are all alike.
    assert tokens[..., 0].numpy().tolist() == [[6, 5, 0], [7, 0, 0]]
    sums = [np.exp([5.0, 4.0, 9.0]).sum() + 9, np.exp(2) + 11, np.exp(3) + 11]
    first, third, second = np.exp([4.0, 2.0, 3.0]) / sums
    np.testing.assert_allclose(
        probabilities[..., 0], [[first, third, 0], [second, 0, 0]], rtol=1e-5
    )
    assert (probabilities.numpy()[:, 2] == 0).all()


def test_there_are_no_more_candidates_than_tokens(predictor):
    tokens, _ = mask_candidates(
        predictor, tf.constant([[2, 4, 3]]), count=99, max_caption_tokens=1
    )
    assert sorted(tokens.numpy().ravel()) == [5, 6, 7, 8, 9, 10, 11]
