import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import (
    DecodingOptions,
    FoundTokens,
    TokenPredictor,
    mask_predict,
)
from bmt_keras.decoding.overlap import expected_overlap

SHARES = np.array(
    [
        [0, 0, 0, 0, 0, 0.8, 0.1, 0.5, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0.2, 0.9, 0.0, 0, 0, 0, 0.4],
    ],
    np.float32,
)
WEIGHTS = np.array([9, 9, 9, 9, 9, 1, 2, 3, 1, 1, 1, 2], np.float32)
FOUND = FoundTokens(tf.constant(SHARES), tf.constant(WEIGHTS))


def overlap_of(captions):
    """Of (batch, rows) captions, 5 and above words."""
    rows = np.zeros((len(captions), len(captions[0]), 8), np.int32)
    for photo, own in enumerate(captions):
        for row, words in enumerate(own):
            rows[photo, row, : len(words) + 2] = [2, *words, 3]
    return expected_overlap(tf.constant(rows), tf.constant(rows > 4), FOUND)


def test_overlap_is_the_f1_of_what_is_said_and_what_is_expected():
    found = overlap_of([[[5, 7], [5, 8, 6]], [[6], [11, 5]]])
    expected_mass = SHARES[:, 5:] @ WEIGHTS[5:]
    expected = [
        [
            2 * (0.8 + 3 * 0.5) / (1 + 3 + expected_mass[0]),
            2 * (0.8 + 2 * 0.1) / (1 + 1 + 2 + expected_mass[0]),
        ],
        [
            2 * (2 * 0.9) / (2 + expected_mass[1]),
            2 * (2 * 0.4 + 0.2) / (2 + 1 + expected_mass[1]),
        ],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_word_said_again_weighs_double_and_is_shared_once():
    captions = [[7, 5], [7, 5, 7]]
    once, again = overlap_of([captions, captions]).numpy()[0]
    mass = SHARES[0] @ WEIGHTS
    assert once == pytest.approx(2 * (1.5 + 0.8) / (4 + mass))
    assert again == pytest.approx(2 * (1.5 + 0.8) / (4 + 6 + mass))


def test_captions_of_a_photo_are_neighbours():
    both = overlap_of([[[5]], [[6]], [[5]], [[6]]])
    apart = [overlap_of([[[w]], [[w]]]) for w in (5, 6)]
    np.testing.assert_allclose(both[0], apart[0][0])
    np.testing.assert_allclose(both[1], apart[1][0])
    np.testing.assert_allclose(both[2], apart[0][1])
    np.testing.assert_allclose(both[3], apart[1][1])


def test_nothing_said_or_expected_is_no_overlap():
    none = FoundTokens(tf.zeros((1, 12)), tf.constant(WEIGHTS))
    rows = tf.constant([[[2, 3, 0]]])
    assert float(expected_overlap(rows, rows > 4, none)[0, 0]) == 0


@pytest.mark.parametrize("draws", [0, 4])
def test_caption_with_the_expected_words_is_kept(
    favour, special, length_log_probs, words_of, draws
):
    """Two lengths: the shorter likelier, the longer with what is found."""
    short, long = favour([5, 8], strength=9.0), favour([5, 6, 7, 8])

    def predict(ids, mask):
        is_short = tf.reduce_sum(mask, axis=-1) == 3
        return tf.where(
            is_short[:, None, None], short(ids, mask), long(ids, mask)
        )

    def write(overlap_weight, found):
        written = mask_predict(
            TokenPredictor(predict, special, vocabulary_size=12, found=found),
            length_log_probs([1, 3]),
            options=DecodingOptions(
                passes=2,
                length_candidates=2,
                overlap_weight=overlap_weight,
                consensus_draws=draws,
            ),
        )
        return len(words_of({"token_ids": written["token_ids"].numpy()})[0])

    rare = np.eye(12, dtype=np.float32)[7][None]
    found = FoundTokens(tf.constant(rare), tf.constant(WEIGHTS))
    assert write(0.0, None) == write(4.0, None)
    if not draws:  # among draws the rare word counts by itself
        assert write(0.0, found) == 1
    assert write(50.0, found) == 3
