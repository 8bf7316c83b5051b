from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding.repeats import avoid_repeats


def has_neighbours_alike(ids):
    return any(a == b > 4 for a, b in pairwise(ids))


def has_pairs_alike(ids, *, anywhere):
    pairs = [p for p in pairwise(ids) if min(p) > 4]
    return any(
        pairs[i] == pairs[j]
        for j in range(len(pairs))
        for i in range(j - 1)
        if anywhere or i == j - 2
    )


@pytest.mark.parametrize("order", ["confidence", "left_to_right"])
@pytest.mark.parametrize("passes", [1, 3])
def test_the_less_certain_neighbour_takes_its_next_best(
    decode, always, words_of, order, passes
):
    predict = always({1: {5: 3.0, 6: 1.0}, 2: {5: 4.0, 7: 2.0}, 3: {8: 3.0}})
    written = decode(predict, [[3]], order=order, passes=passes)
    # Left to right, the first word stands before the second is written.
    expected = {"confidence": [6, 5, 8], "left_to_right": [5, 7, 8]}
    assert words_of(written) == [expected[order]]


def test_a_replaced_word_has_the_score_of_its_replacement(decode, always):
    predict = always({1: {5: 3.0, 6: 1.0}, 2: {5: 4.0}})
    written = decode(predict, [[2]], passes=1)
    first = 1.0 - np.log(np.exp(3.0) + np.exp(1.0) + 10)
    second = 4.0 - np.log(np.exp(4.0) + 11)
    np.testing.assert_allclose(
        written["token_scores"][0, 1:3], [first, second], rtol=1e-5
    )


def test_a_chain_of_repeats_is_resolved(decode, always, words_of):
    # Each place is more certain than the one before it.
    predict = always({i: {5: 2.0 + i, 6: 1.0, 7: 0.5} for i in range(1, 7)})
    written = decode(predict, [[6]], passes=1)
    # From the right: 5, 6, 5; then 6 would make "6 5 6 5", so 7; then 5; and
    # 6 again, as "6 5 7 5" holds no pair twice.
    assert words_of(written) == [[6, 5, 7, 5, 6, 5]]


def test_two_words_do_not_follow_each_other_twice(decode, always, words_of):
    predict = always(
        {
            1: {5: 5.0},
            2: {6: 5.0},
            3: {5: 4.0, 8: 2.0},
            4: {6: 4.5, 9: 2.0},
            5: {7: 5.0},
        }
    )
    written = decode(predict, [[5]], passes=1)
    assert words_of(written) == [[5, 6, 8, 6, 7]]


def test_a_bigram_may_come_again_later_unless_forbidden(
    decode, always, words_of
):
    predict = always(
        {
            1: {5: 5.0},
            2: {6: 5.0},
            3: {7: 5.0},
            4: {5: 4.0},
            5: {6: 3.0, 8: 1.0},
        }
    )
    assert words_of(decode(predict, [[5]])) == [[5, 6, 7, 5, 6]]
    written = decode(predict, [[5]], no_repeated_bigram=True)
    assert words_of(written) == [[5, 6, 7, 5, 8]]


@pytest.mark.parametrize("anywhere", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_random_models_never_repeat(decode, anywhere, temperature):
    def predict(ids, mask):
        # Three favourites at every place, another order on every canvas.
        seed = tf.stack([tf.reduce_sum(ids), 7])
        noise = tf.random.stateless_normal((*ids.shape, 12), seed)
        return noise + 4.0 * tf.one_hot([5, 6], 12).numpy().sum(axis=0)

    written = decode(
        predict,
        [[6]] * 40,
        no_repeated_bigram=anywhere,
        temperature=temperature,
    )
    for ids in written["token_ids"].tolist():
        assert not has_neighbours_alike(ids)
        assert not has_pairs_alike(ids, anywhere=anywhere)


def test_given_tokens_are_never_replaced():
    taken = avoid_repeats(
        tf.constant([[2, 5, 4, 5, 3]]),
        tf.constant([[[5, 6, 7]] * 5]),
        tf.zeros((1, 5)),
        written=tf.constant([[False, False, True, False, False]]),
        known=tf.constant([[False, True, True, True, False]]),
    )
    assert taken.numpy().tolist() == [[0, 0, 1, 0, 0]]


def test_where_every_choice_repeats_the_bigram_gives_way():
    # 5 repeats a neighbour, 6 closes "7 6 7 6".
    taken = avoid_repeats(
        tf.constant([[2, 7, 6, 7, 4, 3]]),
        tf.constant([[[7, 6]] * 6]),
        tf.zeros((1, 6)),
        written=tf.constant([[False] * 4 + [True, False]]),
        known=tf.constant([[False] + [True] * 4 + [False]]),
    )
    assert taken.numpy().tolist() == [[0, 0, 0, 0, 1, 0]]
