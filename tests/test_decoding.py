import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import SpecialTokens, mask_predict

SPECIAL = SpecialTokens(0, 2, 3, 4, banned=(0, 1, 2, 3, 4))
VOCABULARY, WIDTH = 12, 8  # tokens; max_caption_length is 6


def length_log_probs(*favourites):
    """(photos, 7): each photo's lengths in falling order of probability."""
    table = np.full((len(favourites), 7), -20.0, np.float32)
    for row, lengths in zip(table, favourites, strict=True):
        for rank, length in enumerate(lengths):
            row[length] = -float(rank) - 0.1
    return tf.constant(table)


def decode(predict, lengths, *, passes=3, candidates=1):
    written = mask_predict(
        predict,
        length_log_probs(*lengths),
        special=SPECIAL,
        vocabulary_size=VOCABULARY,
        passes=passes,
        length_candidates=candidates,
    )
    return {name: value.numpy() for name, value in written.items()}


def favour(tokens, strength=5.0):
    """Logits that favour one token a position, whatever is asked."""
    logits = np.zeros((1, WIDTH, VOCABULARY), np.float32)
    for place, token in enumerate(tokens):
        logits[0, place, token] = strength
    return lambda ids, mask: tf.tile(logits, (tf.shape(ids)[0], 1, 1))


def test_one_pass_writes_the_best_token_of_every_position():
    predict = favour([9, 5, 6, 7, 8, 9, 10, 11])
    written = decode(predict, [[3]], passes=1)
    assert written["token_ids"].tolist() == [[2, 5, 6, 7, 3, 0, 0, 0]]


def test_scores_are_log_probabilities_of_the_written_tokens():
    written = decode(favour([9, 5, 6, 7, 8, 9, 10, 11]), [[3]], passes=1)
    expected = 5.0 - np.log(np.exp(5.0) + VOCABULARY - 1)
    np.testing.assert_allclose(
        written["token_scores"][0],
        [0, expected, expected, expected, 0, 0, 0, 0],
        rtol=1e-5,
    )
    np.testing.assert_allclose(written["score"], [expected], rtol=1e-5)


def test_special_tokens_are_never_written():
    written = decode(favour([2, 0, 1, 2, 3, 4, 4, 4]), [[6]], passes=2)
    assert (written["token_ids"][0, 1:7] > 4).all()


def test_padding_mask_covers_the_caption_and_its_frame():
    seen = []

    def predict(ids, mask):
        seen.append(mask.numpy())
        return tf.zeros((*ids.shape, VOCABULARY))

    decode(predict, [[2], [4]], passes=1)
    assert seen[0].sum(axis=1).tolist() == [4, 6]


def test_each_pass_masks_fewer_words():
    masks = []

    def predict(ids, mask):
        masks.append(int((ids.numpy() == 4).sum()))
        return tf.random.stateless_normal((*ids.shape, VOCABULARY), (1, 2))

    decode(predict, [[6]], passes=3)
    assert masks == [6, 4, 2]


def test_the_least_certain_word_is_masked_again():
    certain = [0.0, 6.0, 1.0, 6.0]  # position 2 is the uncertain one
    canvases = []

    def predict(ids, mask):
        canvases.append(ids.numpy())
        logits = np.zeros((1, WIDTH, VOCABULARY), np.float32)
        for place, strength in enumerate(certain):
            logits[0, place, 5 + place] = strength
        return tf.constant(logits)

    decode(predict, [[3]], passes=3)
    assert (canvases[2][0] == 4).nonzero()[0].tolist() == [2]


def test_a_word_written_again_takes_the_new_token_and_score():
    def predict(ids, mask):
        blank = tf.reduce_sum(tf.cast(ids == 4, tf.int32)) == 2
        first = favour([0, 5, 6], strength=1.0)(ids, mask)
        second = favour([0, 7, 8], strength=9.0)(ids, mask)
        return tf.where(blank, first, second)

    written = decode(predict, [[2]], passes=2)
    assert sorted(written["token_ids"][0, 1:3].tolist()) in ([6, 7], [5, 8])


def test_the_candidate_length_with_the_best_mean_score_is_kept():
    def predict(ids, mask):
        sure = tf.reduce_sum(mask, axis=-1) == 4  # two words
        strength = tf.where(sure, 8.0, 2.0)[:, None, None]
        return favour([5] * 8, strength=1.0)(ids, mask) * strength

    written = decode(predict, [[5, 2, 3]], candidates=3)
    assert written["token_ids"].tolist() == [[2, 5, 5, 3, 0, 0, 0, 0]]


def test_a_caption_of_no_words_is_never_a_candidate():
    written = decode(favour([5] * 8), [[0, 1]], passes=1)
    assert written["token_ids"].tolist() == [[2, 5, 3, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("passes", [1, 4, 10])
def test_the_graph_calls_the_model_in_one_place(passes):
    traced = []

    def predict(ids, mask):
        traced.append(1)
        return tf.random.stateless_normal(
            (tf.shape(ids)[0], WIDTH, VOCABULARY), (1, 2)
        )

    @tf.function(input_signature=[tf.TensorSpec((None, 7), tf.float32)])
    def write(lengths):
        return mask_predict(
            predict,
            lengths,
            special=SPECIAL,
            vocabulary_size=VOCABULARY,
            passes=passes,
            length_candidates=2,
        )

    write(length_log_probs([3, 2], [4, 1], [6, 5]))
    assert len(traced) == 1
