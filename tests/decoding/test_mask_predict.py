import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import (
    DecodingOptions,
    TokenPredictor,
    draw_captions,
    fill_masks,
    mask_predict,
)

VOCABULARY = 12


def log_prob(strength):
    """Of a token with this logit among others of 0."""
    return strength - np.log(np.exp(strength) + VOCABULARY - 1)


def random_logits(ids, mask):
    shape = (*tf.unstack(tf.shape(ids)), VOCABULARY)
    return tf.random.stateless_normal(shape, (1, 2))


def test_one_pass_writes_the_best_token_of_every_position(decode, favour):
    written = decode(favour([9, 5, 6, 7, 8, 9, 10, 11]), [[3]], passes=1)
    assert written["token_ids"].tolist() == [[[2, 5, 6, 7, 3, 0, 0, 0]]]
    own = log_prob(5.0)
    np.testing.assert_allclose(
        written["token_scores"], [[[0, own, own, own, 0, 0, 0, 0]]], rtol=1e-5
    )
    np.testing.assert_allclose(written["score"], [[own]], rtol=1e-5)


def test_special_tokens_are_never_written(decode, favour):
    written = decode(favour([2, 0, 1, 2, 3, 4, 4, 4]), [[6]], passes=2)
    assert (written["token_ids"][0, 0, 1:7] > 4).all()


def test_the_canvas_is_as_wide_as_the_longest_caption(decode):
    seen = []

    def predict(ids, mask):
        seen.append(mask.numpy())
        return tf.zeros((*ids.shape, VOCABULARY))

    written = decode(predict, [[2], [4]], passes=1)
    assert seen[0].tolist() == [[[1, 1, 1, 1, 0, 0]], [[1, 1, 1, 1, 1, 1]]]
    assert written["token_ids"].shape == (2, 1, 8)
    assert written["token_scores"].shape == (2, 1, 8)


@pytest.mark.parametrize(
    ("lengths", "passes", "expected"),
    [
        # 6 * (1, 2/3, 1/3).
        ([[6]], 3, [6, 4, 2]),
        # 2 * (1 - step / 10) is at least 1 up to step 5; each later pass would
        # mask nothing.
        ([[2]], 10, [2, 1, 1, 1, 1, 1]),
        ([[2], [6]], 10, [8, 6, 5, 5, 4, 4, 2, 1, 1]),
    ],
)
def test_each_pass_masks_fewer_tokens(
    decode, recorded, lengths, passes, expected
):
    predict, canvases = recorded(random_logits)
    decode(predict, lengths, passes=passes)
    assert [int((ids == 4).sum()) for ids in canvases] == expected


def test_the_least_certain_token_is_masked_again(decode, always, recorded):
    # Position 2 is the uncertain one.
    predict, canvases = recorded(
        always({1: {6: 6.0}, 2: {7: 1.0}, 3: {8: 6.0}})
    )
    decode(predict, [[3]], passes=3)
    assert (canvases[2][0, 0] == 4).nonzero()[0].tolist() == [2]


def test_a_token_written_again_takes_the_new_one_and_its_score(decode, favour):
    weak, strong = favour([0, 5, 6], strength=1.0), favour([0, 7, 8], 9.0)

    def predict(ids, mask):
        blank = tf.reduce_sum(tf.cast(ids == 4, tf.int32)) == 2
        return tf.where(blank, weak(ids, mask), strong(ids, mask))

    written = decode(predict, [[2]], passes=2)
    assert written["token_ids"][0, 0, 1:3].tolist() in ([7, 6], [5, 8])
    assert written["token_scores"].max(
        initial=-9, where=written["token_ids"] > 6
    ) == pytest.approx(log_prob(9.0), rel=1e-3)


def test_logits_are_asked_for_at_masks_alone(
    tokenizer, length_log_probs, always
):
    model = always({1: {6: 6.0}, 2: {7: 1.0}, 3: {8: 6.0}})
    asked = []

    def predict_logits(ids, mask, *, mask_positions):
        asked.append(mask_positions.numpy().tolist())
        return tf.gather(model(ids, mask), mask_positions, batch_dims=2)

    mask_predict(
        TokenPredictor(
            predict_logits, tokenizer, length_log_probs=length_log_probs([3])
        ),
        options=DecodingOptions(passes=3, length_candidates=1),
    )
    assert [len(positions[0][0]) for positions in asked] == [3, 2, 1]
    assert asked[2] == [[[2]]]


def test_left_to_right_writes_a_token_per_pass(decode, favour, recorded):
    predict, canvases = recorded(favour([0, 5, 6, 7]))
    written = decode(predict, [[3]], order="left_to_right", passes=1)
    assert [ids[0, 0].tolist() for ids in canvases] == [
        [2, 4, 4, 4, 3],
        [2, 5, 4, 4, 3],
        [2, 5, 6, 4, 3],
    ]
    assert written["token_ids"].tolist() == [[[2, 5, 6, 7, 3, 0, 0, 0]]]


@pytest.mark.parametrize("order", ["confidence", "left_to_right"])
def test_passes_and_batch_need_no_new_trace(
    predictor_of, length_log_probs, compiled, order
):
    calls = []

    def predict(ids, mask):
        tf.py_function(lambda: calls.append(1), [], [])
        return random_logits(ids, mask)

    def decode(lengths, passes):
        options = DecodingOptions(
            passes=passes, length_candidates=2, order=order
        )
        return mask_predict(predictor_of(predict, lengths), options=options)

    write, traced = compiled(decode, ((None, 7), "float32"), ((), "int32"))
    made = []
    for passes in (1, 4, 12):
        write(length_log_probs([3, 2], [4, 1], [6, 5]), passes)
        made.append(len(calls))
        calls.clear()
    write(length_log_probs([3, 2]), 2)
    assert len(traced) == 1
    # The last of 12 passes would mask half a token of 6.
    assert made == ([1, 4, 11] if order == "confidence" else [6, 6, 6])


@pytest.mark.parametrize("order", ["confidence", "left_to_right"])
def test_no_images_give_no_captions(
    predictor_of, length_log_probs, favour, compiled, order
):
    options = DecodingOptions(order=order, num_captions=2, mbr_samples=4)
    write, _ = compiled(
        lambda lengths: mask_predict(
            predictor_of(favour([5] * 8), lengths), options=options
        ),
        ((None, 7), "float32"),
    )
    written = write(length_log_probs([3])[:0])
    assert written["token_ids"].shape == (0, 2, 8)
    assert written["score"].shape == (0, 2)


def test_masks_of_a_caption_are_filled_with_beginnings_of_words(
    predictor_of, favour
):
    # 9 and 10 would go on with a word.
    predictor = predictor_of(favour([0, 9, 6, 7, 10, 9]), continuing=[9, 10])
    token_ids = tf.constant([[2, 4, 6, 4, 3, 0], [2, 4, 3, 0, 0, 0]])
    written = fill_masks(predictor, token_ids, options=DecodingOptions())
    assert written[0].numpy().tolist() == [2, 5, 6, 7, 3, 0]
    assert written[1].numpy().tolist() == [2, 5, 3, 0, 0, 0]


def test_captions_to_learn_from_have_drawn_lengths(
    predictor_of, length_log_probs, always
):
    def draw(seed):
        return draw_captions(
            predictor_of(always({1: {5: 1.0}}), length_log_probs([2, 4], [3])),
            options=DecodingOptions(
                num_captions=20, temperature=1.0, seed=tf.constant([seed, 0])
            ),
        ).numpy()

    drawn = draw(1)
    lengths = (drawn > 4).sum(axis=-1)
    assert drawn.shape[:2] == (2, 20)
    assert set(lengths[0]) == {2, 4}
    assert set(lengths[1]) == {3}
    np.testing.assert_array_equal(drawn, draw(1))
    assert (drawn.shape != draw(2).shape) or (drawn != draw(2)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "random"}, "`order` must be one of"),
        ({"passes": 0}, "`passes` must be at least 1"),
        ({"num_captions": 0}, "`num_captions` must be at least 1"),
        ({"temperature": -1.0}, "`temperature` must be at least 0"),
        ({"top_p": 0.0}, "`top_p` must be above 0 and at most 1"),
        ({"mbr_samples": -1}, "mbr_samples=-1"),
        ({"rerank_top": -1}, "rerank_top=-1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DecodingOptions(**options)
