import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import place_keywords
from bmt_keras.decoding.canvas import blank_canvas


def decode_with(decode, predict, keywords, lengths=((4,),), **options):
    keywords = tf.constant([keywords] * len(lengths))
    return decode(predict, lengths, controls={"keywords": keywords}, **options)


def test_a_keyword_stands_where_the_model_likes_it_best(
    decode, always, words_of
):
    # 10 is likelier than elsewhere at place 3, though 7 is preferred there.
    predict = always({1: {5: 5.0}, 2: {6: 5.0}, 3: {7: 5.0, 10: 2.0}})
    written = decode_with(decode, predict, [[10]], [[3]])
    assert words_of(written) == [[5, 6, 10]]
    expected = 2.0 - np.log(np.exp(5.0) + np.exp(2.0) + 10)
    np.testing.assert_allclose(
        written["token_scores"][0, 3], expected, rtol=1e-5
    )


def test_all_tokens_of_a_keyword_decide_on_its_place(decode, always, words_of):
    # Log-probabilities of "10 11" from place 1, 2 and 3: -0.44 - 4.18,
    # -0.18 - 2.82, -0.32 - 0.91. 10 alone is likeliest at place 2.
    predict = always(
        {1: {10: 3.0}, 2: {10: 4.0}, 3: {10: 3.5, 11: 1.0}, 4: {11: 2.0}}
    )
    written = decode_with(decode, predict, [[10, 11]], passes=1)
    assert words_of(written)[0][2:] == [10, 11]
    np.testing.assert_allclose(
        written["token_scores"][0, 3:5], [-0.325, -0.912], atol=1e-3
    )


def test_later_keywords_leave_earlier_ones_in_place(decode, always, words_of):
    # Both want place 2: the first keyword takes it, the second goes to 4.
    predict = always({2: {10: 5.0, 11: 5.0}, 4: {11: 1.0}, 1: {5: 9.0}})
    written = decode_with(decode, predict, [[10], [11]], passes=1)
    (words,) = words_of(written)
    assert words[1] == 10
    assert words[3] == 11


def test_padding_of_keywords_is_no_part_of_them(decode, always, words_of):
    predict = always({1: {5: 5.0}, 2: {6: 5.0}, 3: {10: 5.0}, 4: {11: 5.0}})
    written = decode_with(decode, predict, [[10, 11], [6, 0], [0, 0]])
    assert words_of(written) == [[5, 6, 10, 11]]


def test_keywords_that_leave_no_room_are_packed(decode, always, words_of):
    # The middle is best for "10 11", and would leave two single places.
    predict = always({2: {10: 9.0}, 3: {11: 9.0}})
    written = decode_with(decode, predict, [[10, 11], [8, 9]])
    assert words_of(written) == [[10, 11, 8, 9]]


def test_a_caption_has_room_for_its_keywords(decode, favour, words_of):
    written = decode_with(
        decode, favour([5] * 8), [[10, 11], [8, 9]], [[1, 2, 5]]
    )
    (words,) = words_of(written)
    assert len(words) == 5
    assert {8, 9, 10, 11} <= set(words)


@pytest.mark.parametrize("order", ["confidence", "left_to_right"])
def test_words_beside_a_keyword_do_not_repeat_it(
    decode, always, words_of, order
):
    predict = always({1: {10: 8.0, 5: 1.0}, 2: {10: 9.0}, 3: {10: 8.0, 6: 1.0}})
    written = decode_with(decode, predict, [[10]], [[3]], order=order)
    assert words_of(written) == [[5, 10, 6]]


def test_each_row_has_its_own_keywords(predictor_of, always, special):
    canvas = blank_canvas(tf.constant([[2], [3]]), special)
    placed = place_keywords(
        predictor_of(always({1: {10: 1.0}, 3: {11: 1.0}})),
        canvas,
        tf.constant([[[10]], [[11]]]),
    )
    assert placed.token_ids.numpy().tolist() == [
        [2, 10, 4, 3, 0],
        [2, 4, 4, 11, 3],
    ]


def test_keywords_of_any_number_need_no_new_trace(
    predictor_of, length_log_probs, always
):
    from bmt_keras.decoding import DecodingOptions, mask_predict

    traced = []
    model = always({3: {10: 5.0}})

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 7), tf.float32),
            tf.TensorSpec((None, None, None), tf.int32),
        ]
    )
    def write(lengths, keywords):
        traced.append(1)
        return mask_predict(
            predictor_of(model),
            lengths,
            options=DecodingOptions(length_candidates=2),
            keywords=keywords,
        )["token_ids"]

    lengths = length_log_probs([4, 3], [5, 6])
    for keywords in ([[10]], [[10, 11], [7, 0]], [[8], [9], [6]]):
        written = write(lengths, tf.constant([keywords] * 2)).numpy()
        wanted = {token for row in keywords for token in row if token}
        assert all(wanted <= set(row) for row in written.tolist())
    assert len(traced) == 1
