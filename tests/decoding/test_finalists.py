import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import DecodingOptions, score_tokens
from bmt_keras.decoding.finalists import read_finalists

CAPTIONS = np.array(
    [
        [[2, 5, 6, 7, 3, 0], [2, 5, 6, 3, 0, 0], [2, 8, 9, 7, 3, 0]],
        [[2, 9, 3, 0, 0, 0], [2, 9, 3, 0, 0, 0], [2, 7, 5, 3, 0, 0]],
    ],
    np.int32,
)
RANKS = np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 0.5]], np.float32)
COUNTED = (CAPTIONS > 4)[..., :5]


@pytest.fixture
def predictor(predictor_of, always):
    return predictor_of(always({1: {5: 2.0, 9: 1.0}, 2: {6: 3.0}, 3: {7: 1.0}}))


def read(predictor, counted=COUNTED, **options):
    captions = {
        "token_ids": tf.constant(CAPTIONS),
        "score": tf.constant(RANKS * 10),
    }
    return read_finalists(
        predictor,
        captions,
        tf.constant(RANKS),
        tf.constant(counted),
        options=DecodingOptions(**options),
    )


def test_best_are_kept_and_ranked_by_a_reading_of_each_word(predictor):
    captions, ranks = read(predictor, finalists=2)
    # The second photo's copy of its best caption makes way for the third.
    for photo, rows in enumerate([[1, 2], [0, 2]]):
        kept = CAPTIONS[photo, rows]
        np.testing.assert_array_equal(captions["token_ids"][photo], kept)
        np.testing.assert_array_equal(
            captions["score"][photo], RANKS[photo, rows] * 10
        )
        words = score_tokens(predictor, tf.constant(kept)).numpy()
        mean = words.sum(1) / (kept > 4).sum(1)
        np.testing.assert_allclose(
            ranks[photo], RANKS[photo, rows] + 0.3 * mean, rtol=1e-5
        )


def test_words_that_were_given_are_not_judged(predictor):
    counted = COUNTED.copy()
    counted[..., 1] = False
    _, ranks = read(predictor, counted, finalists=1)
    words = score_tokens(predictor, tf.constant(CAPTIONS[:1, 1])).numpy()
    assert float(ranks[0, 0]) == pytest.approx(3.0 + 0.3 * words[0, 2])
    assert float(ranks[1, 0]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"finalists": 9}, 3),
        ({"finalists": 1, "num_captions": 2}, 2),
    ],
)
def test_as_many_are_kept_as_there_are_or_are_asked_for(
    predictor, options, kept
):
    captions, ranks = read(predictor, **options)
    assert captions["token_ids"].shape == (2, kept, 6)
    assert ranks.shape == (2, kept)


def test_caption_whose_words_go_together_is_chosen(decode, words_of):
    """Two words are surer than three until one is read after the other."""
    blank = np.zeros((8, 12), np.float32)
    blank[1, 5] = blank[2, 8] = 6.0
    longer = np.zeros((8, 12), np.float32)
    longer[1, 5] = longer[2, 7] = longer[3, 9] = 5.0

    def predict(ids, mask):
        width = tf.shape(ids)[1]
        is_short = tf.reduce_sum(mask, axis=-1) == 4
        table = tf.where(
            is_short[:, None, None], blank[None, :width], longer[None, :width]
        )
        after_five = tf.pad(ids[:, :-1] == 5, [[0, 0], [1, 0]])
        unlike = tf.cast(after_five, tf.float32)[..., None] * tf.one_hot(8, 12)
        return table - 12.0 * unlike

    options = {"length_candidates": 2, "passes": 1}
    assert words_of(decode(predict, [[2, 3]], **options)) == [[5, 8]]
    read_again = decode(predict, [[2, 3]], finalists=2, **options)
    assert words_of(read_again) == [[5, 7, 9]]


def test_an_asked_length_leaves_one_caption(decode, favour):
    written = decode(
        favour([0, 5, 6, 7]), [[3]], controls={"length": [3]}, finalists=4
    )
    assert written["score"].shape == (1,)
    assert written["token_scores"].shape == written["token_ids"].shape


def test_a_negative_number_is_told():
    with pytest.raises(ValueError, match="finalists=-1"):
        DecodingOptions(finalists=-1)
