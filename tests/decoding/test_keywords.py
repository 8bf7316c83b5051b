import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import DecodingOptions, mask_predict
from bmt_keras.decoding.canvas import blank_canvas
from bmt_keras.decoding.constraints import place_keywords


@pytest.fixture
def decode_with(decode):
    def run(predict, keywords, lengths=(4,), **options):
        controls = {"keywords": [keywords]}
        return decode(predict, [lengths], controls=controls, **options)

    return run


def test_a_keyword_stands_where_the_model_likes_it_best(
    decode_with, always, tokens_of
):
    # 10 is likeliest at position 3, though 7 is preferred there.
    predict = always({1: {5: 5.0}, 2: {6: 5.0}, 3: {7: 5.0, 10: 2.0}})
    written = decode_with(predict, [[10]], [3])
    assert tokens_of(written) == [[5, 6, 10]]
    expected = 2.0 - np.log(np.exp(5.0) + np.exp(2.0) + 10)
    assert written["token_scores"][0, 0, 3] == pytest.approx(expected, rel=1e-5)


def test_all_tokens_of_a_keyword_decide_on_its_position(
    decode_with, always, tokens_of
):
    # Log-probabilities of "10 11" from position 1, 2 and 3: -0.44 - 4.18,
    # -0.18 - 2.82, -0.32 - 0.91. 10 alone is likeliest at position 2.
    predict = always(
        {1: {10: 3.0}, 2: {10: 4.0}, 3: {10: 3.5, 11: 1.0}, 4: {11: 2.0}}
    )
    written = decode_with(predict, [[10, 11]], passes=1)
    assert tokens_of(written)[0][2:] == [10, 11]
    np.testing.assert_allclose(
        written["token_scores"][0, 0, 3:5], [-0.325, -0.912], atol=1e-3
    )


@pytest.mark.parametrize("order", ["confidence", "left_to_right"])
@pytest.mark.parametrize(
    ("logits", "keywords", "expected"),
    [
        # Padding is no part of them.
        (
            {1: {5: 5.0}, 2: {6: 5.0}, 3: {10: 5.0}, 4: {11: 5.0}},
            [[10, 11], [6, 0], [0, 0]],
            [5, 6, 10, 11],
        ),
        # Both want position 2: the first takes it, the second goes to 4.
        (
            {2: {10: 5.0, 11: 5.0}, 4: {11: 1.0}, 1: {5: 9.0}, 3: {6: 9.0}},
            [[10], [11]],
            [5, 10, 6, 11],
        ),
        # The middle is best for "10 11", and would leave two single positions:
        # without room they are packed.
        ({2: {10: 9.0}, 3: {11: 9.0}}, [[10, 11], [8, 9]], [10, 11, 8, 9]),
        # Their neighbours do not repeat them.
        (
            {1: {10: 8.0, 5: 1.0}, 2: {10: 9.0}, 3: {10: 8.0, 6: 1.0}},
            [[10]],
            [5, 10, 6],
        ),
    ],
)
def test_keywords_take_their_places_in_turn(
    decode_with, always, tokens_of, logits, keywords, expected, order
):
    lengths = [len(expected)]
    written = decode_with(always(logits), keywords, lengths, order=order)
    assert tokens_of(written) == [expected]


def test_a_caption_has_room_for_its_keywords(decode_with, favour, tokens_of):
    written = decode_with(favour([5] * 8), [[10, 11], [8, 9]], [1, 2, 5])
    (tokens,) = tokens_of(written)
    assert len(tokens) == 5
    assert {8, 9, 10, 11} <= set(tokens)


def test_each_image_has_its_own_keywords_in_all_candidates(
    predictor_of, always, tokenizer
):
    canvas = blank_canvas(tf.constant([[2, 3], [3, 1]]), tokenizer)
    placed = place_keywords(
        predictor_of(always({1: {10: 1.0}, 3: {11: 1.0}})),
        canvas,
        tf.constant([[[10]], [[11]]]),
    )
    assert placed.token_ids.numpy().tolist() == [
        [[2, 10, 4, 3, 0], [2, 10, 4, 4, 3]],
        [[2, 4, 4, 11, 3], [2, 11, 3, 0, 0]],
    ]
    # A word begins after a keyword.
    assert placed.is_start.numpy().argmax(axis=-1).tolist() == [[2, 2], [4, 2]]


def test_keywords_of_any_number_need_no_new_trace(
    predictor_of, length_log_probs, always, compiled
):
    def predict(lengths, keywords):
        return mask_predict(
            predictor_of(always({3: {10: 5.0}}), lengths),
            options=DecodingOptions(length_candidates=2),
            keywords=keywords,
        )["token_ids"]

    inputs = ((None, 7), "float32"), ((None, None, None), "int32")
    write, traced = compiled(predict, *inputs)
    lengths = length_log_probs([4, 3], [5, 6])
    for keywords in ([[10]], [[10, 11], [7, 0]], [[8], [9], [6]]):
        written = write(lengths, tf.constant([keywords] * 2)).numpy()
        # One image's keywords are all images'.
        alike = write(lengths, tf.constant([keywords])).numpy()
        np.testing.assert_array_equal(written, alike)
        wanted = {token for keyword in keywords for token in keyword if token}
        assert all(wanted <= set(caption) for (caption,) in written.tolist())
    assert len(traced) == 1
