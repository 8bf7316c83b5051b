from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding.repeats import avoid_repeats


@pytest.mark.parametrize("order", ["confidence", "left_to_right"])
@pytest.mark.parametrize("passes", [1, 3])
def test_the_less_certain_neighbour_takes_its_next_best(
    decode, always, tokens_of, order, passes
):
    predict = always({1: {5: 3.0, 6: 1.0}, 2: {5: 4.0, 7: 2.0}, 3: {8: 3.0}})
    written = decode(predict, [[3]], order=order, passes=passes)
    # Left to right, the first token stands before the second is written.
    expected = {"confidence": [6, 5, 8], "left_to_right": [5, 7, 8]}
    assert tokens_of(written) == [expected[order]]


def test_a_replaced_token_has_the_score_of_its_replacement(decode, always):
    predict = always({1: {5: 3.0, 6: 1.0}, 2: {5: 4.0}})
    written = decode(predict, [[2]], passes=1)
    first = 1.0 - np.log(np.exp(3.0) + np.exp(1.0) + 10)
    second = 4.0 - np.log(np.exp(4.0) + 11)
    np.testing.assert_allclose(
        written["token_scores"][0, 0, 1:3], [first, second], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        # Each position is more certain than the one before it. From the right:
        # 5, 6, 5; then 6 would make "6 5 6 5", so 7; then 5; and 6 again, as
        # "6 5 7 5" holds no pair twice.
        (
            {i: {5: 2.0 + i, 6: 1.0, 7: 0.5} for i in range(1, 7)},
            [6, 5, 7, 5, 6, 5],
        ),
        # Two tokens do not follow each other twice in a row.
        (
            {
                1: {5: 5.0},
                2: {6: 5.0},
                3: {5: 4.0, 8: 2.0},
                4: {6: 4.5, 9: 2.0},
                5: {7: 5.0},
            },
            [5, 6, 8, 6, 7],
        ),
        # They may come again later.
        (
            {1: {5: 5.0}, 2: {6: 5.0}, 3: {7: 5.0}, 4: {5: 4.0}, 5: {6: 3.0}},
            [5, 6, 7, 5, 6],
        ),
    ],
)
def test_a_chain_of_repeats_is_resolved(
    decode, always, tokens_of, logits, expected
):
    written = decode(always(logits), [[len(expected)]], passes=1)
    assert tokens_of(written) == [expected]


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_random_models_never_repeat(decode, tokens_of, temperature):
    def predict(ids, mask):
        # Two favourites at every position, another order on every canvas.
        seed = tf.stack([tf.reduce_sum(ids), 7])
        noise = tf.random.stateless_normal((*ids.shape, 12), seed)
        return noise + 4.0 * tf.one_hot([5, 6], 12).numpy().sum(axis=0)

    written = decode(predict, [[6]] * 40, temperature=temperature)
    for tokens in tokens_of(written):
        assert all(a != b for a, b in pairwise(tokens))
        pairs = list(pairwise(tokens))
        assert all(a != b for a, b in zip(pairs, pairs[2:], strict=False))


@pytest.mark.parametrize(
    ("token_ids", "choices", "position", "expected"),
    [
        # 5 would repeat both neighbours.
        ([2, 5, 4, 5, 3], [5, 6, 7], 2, 1),
        # 7 would repeat its neighbour, 6 makes "7 6 7 6": the pair gives way.
        ([2, 7, 6, 7, 4, 3], [7, 6], 4, 1),
    ],
)
def test_given_tokens_are_never_replaced(
    token_ids, choices, position, expected
):
    width = len(token_ids)
    chosen = np.arange(width) == position
    taken = avoid_repeats(
        tf.constant([[token_ids]]),
        tf.constant([[[choices] * width]]),
        tf.zeros((1, 1, width)),
        written=tf.constant(chosen[None, None]),
        known=tf.constant([[[token > 3 for token in token_ids]]]),
    )
    assert taken.numpy().tolist() == [[(expected * chosen).tolist()]]
