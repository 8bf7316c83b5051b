import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import DecodingOptions, mask_predict

VOCABULARY = 12


def test_one_pass_writes_the_best_token_of_every_position(decode, favour):
    predict = favour([9, 5, 6, 7, 8, 9, 10, 11])
    written = decode(predict, [[3]], passes=1)
    assert written["token_ids"].tolist() == [[2, 5, 6, 7, 3, 0, 0, 0]]


def test_scores_are_log_probabilities_of_the_written_tokens(decode, favour):
    written = decode(favour([9, 5, 6, 7, 8, 9, 10, 11]), [[3]], passes=1)
    expected = 5.0 - np.log(np.exp(5.0) + VOCABULARY - 1)
    np.testing.assert_allclose(
        written["token_scores"][0],
        [0, expected, expected, expected, 0, 0, 0, 0],
        rtol=1e-5,
    )
    np.testing.assert_allclose(written["score"], [expected], rtol=1e-5)


def test_special_tokens_are_never_written(decode, favour):
    written = decode(favour([2, 0, 1, 2, 3, 4, 4, 4]), [[6]], passes=2)
    assert (written["token_ids"][0, 1:7] > 4).all()


def test_the_canvas_is_as_wide_as_the_longest_caption(decode):
    seen = []

    def predict(ids, mask):
        seen.append(mask.numpy())
        return tf.zeros((*ids.shape, VOCABULARY))

    written = decode(predict, [[2], [4]], passes=1)
    assert seen[0].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert written["token_ids"].shape == (2, 8)
    assert written["token_scores"].shape == (2, 8)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    # 6 * (1, 2/3, 1/3), and 6 * cos(0, pi/6, pi/3) = 6, 5.196, 3.
    [("linear", [6, 4, 2]), ("cosine", [6, 5, 3])],
)
def test_each_pass_masks_fewer_words(decode, schedule, expected):
    masks = []

    def predict(ids, mask):
        masks.append(int((ids.numpy() == 4).sum()))
        return tf.random.stateless_normal((*ids.shape, VOCABULARY), (1, 2))

    decode(predict, [[6]], passes=3, schedule=schedule)
    assert masks == expected


@pytest.mark.parametrize(
    ("lengths", "schedule", "expected"),
    # 2 * (1 - step / 10) is at least 1 up to step 5, 6 times that up to 8;
    # 2 * cos(pi / 2 * step / 10) up to step 6.
    [([[2]], "linear", 6), ([[2], [6]], "linear", 9), ([[2]], "cosine", 7)],
)
def test_no_pass_runs_that_masks_nothing(
    decode, favour, lengths, schedule, expected
):
    masks = []
    model = favour([0, 5, 6, 7, 8, 9, 10, 11])

    def predict(ids, mask):
        masks.append(int((ids.numpy() == 4).sum()))
        return model(ids, mask)

    decode(predict, lengths, passes=10, schedule=schedule)
    assert len(masks) == expected
    assert min(masks) > 0


def test_the_least_certain_word_is_masked_again(decode, always):
    # Position 2 is the uncertain one.
    model = always({1: {6: 6.0}, 2: {7: 1.0}, 3: {8: 6.0}})
    canvases = []

    def predict(ids, mask):
        canvases.append(ids.numpy())
        return model(ids, mask)

    decode(predict, [[3]], passes=3)
    assert (canvases[2][0] == 4).nonzero()[0].tolist() == [2]


def test_a_word_written_again_takes_the_new_token_and_score(decode, favour):
    weak, strong = favour([0, 5, 6], strength=1.0), favour([0, 7, 8], 9.0)

    def predict(ids, mask):
        blank = tf.reduce_sum(tf.cast(ids == 4, tf.int32)) == 2
        return tf.where(blank, weak(ids, mask), strong(ids, mask))

    written = decode(predict, [[2]], passes=2)
    assert written["token_ids"][0, 1:3].tolist() in ([7, 6], [5, 8])
    expected = 9.0 - np.log(np.exp(9.0) + VOCABULARY - 1)
    assert written["token_scores"].max(
        initial=-9, where=written["token_ids"] > 6
    ) == pytest.approx(expected, rel=1e-3)


def test_logits_are_asked_for_at_masks_alone(decode, always):
    model = always({1: {6: 6.0}, 2: {7: 1.0}, 3: {8: 6.0}})
    asked = []

    def predict(ids, mask, mask_positions):
        asked.append(mask_positions.numpy().tolist())
        logits = model(ids, mask)
        return tf.gather(logits, mask_positions, batch_dims=1)

    written = decode(predict, [[3]], passes=3, at_positions=True)
    assert [len(positions[0]) for positions in asked] == [3, 2, 1]
    assert asked[2] == [[2]]
    expected = decode(model, [[3]], passes=3)
    np.testing.assert_array_equal(written["token_ids"], expected["token_ids"])
    np.testing.assert_allclose(written["score"], expected["score"], rtol=1e-6)


def test_left_to_right_writes_a_word_a_pass(decode, favour):
    canvases = []
    model = favour([0, 5, 6, 7])

    def predict(ids, mask):
        canvases.append(ids.numpy()[0].tolist())
        return model(ids, mask)

    written = decode(predict, [[3]], order="left_to_right", passes=1)
    assert canvases == [[2, 4, 4, 4, 3], [2, 5, 4, 4, 3], [2, 5, 6, 4, 3]]
    assert written["token_ids"].tolist() == [[2, 5, 6, 7, 3, 0, 0, 0]]


@pytest.mark.parametrize("order", ["confidence", "left_to_right"])
def test_passes_and_batch_need_no_new_trace(
    predictor_of, length_log_probs, order
):
    traced, calls = [], []

    def predict(ids, mask):
        traced.append(1)
        tf.py_function(lambda: calls.append(1), [], [])
        return tf.random.stateless_normal(
            (tf.shape(ids)[0], tf.shape(ids)[1], VOCABULARY), (1, 2)
        )

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 7), tf.float32),
            tf.TensorSpec((), tf.int32),
        ]
    )
    def write(lengths, passes):
        options = DecodingOptions(
            passes=passes, length_candidates=2, order=order
        )
        return mask_predict(predictor_of(predict), lengths, options=options)

    made = []
    for passes in (1, 4, 12):
        write(length_log_probs([3, 2], [4, 1], [6, 5]), passes)
        made.append(len(calls))
        calls.clear()
    write(length_log_probs([3, 2]), 2)
    assert len(traced) == 1
    # The last of 12 passes would mask half a word of 6.
    assert made == ([1, 4, 11] if order == "confidence" else [6, 6, 6])


@pytest.mark.parametrize("order", ["confidence", "left_to_right"])
def test_no_photos_give_no_captions(
    predictor_of, length_log_probs, favour, order
):
    @tf.function(input_signature=[tf.TensorSpec((None, 7), tf.float32)])
    def write(lengths):
        options = DecodingOptions(order=order, length_candidates=2)
        predictor = predictor_of(favour([5] * 8))
        return mask_predict(predictor, lengths, options=options)

    written = write(length_log_probs([3])[:0])
    assert written["token_ids"].shape == (0, 8)
    assert written["score"].shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "square"}, "`schedule` must be one of"),
        ({"order": "random"}, "`order` must be one of"),
        ({"passes": 0}, "`passes` must be at least 1"),
        ({"num_captions": 0}, "`num_captions` must be at least 1"),
        ({"temperature": -1.0}, "`temperature` must not be negative"),
        ({"top_p": 0.0}, r"`top_p` must be in \(0, 1\]"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DecodingOptions(**options)
