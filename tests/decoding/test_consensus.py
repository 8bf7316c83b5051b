import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import DecodingOptions
from bmt_keras.decoding.consensus import agreement


def ngrams(words, order):
    return [tuple(words[i : i + order]) for i in range(len(words) + 1 - order)]


def likeness(one, other, weight_of):
    """F1 of n-grams by weight, in which what is said again weighs double."""
    total = 0.0
    for order in (1, 2):

        def weigh(ngram):
            return sum(weight_of(word) for word in ngram) / len(ngram)

        mass = 0.0
        for words in (one, other):
            seen = ngrams(words, order)
            for place, ngram in enumerate(seen):
                again = ngram in seen[:place]
                mass += weigh(ngram) * (2 if again else 1)
        shared = {*ngrams(one, order)} & {*ngrams(other, order)}
        total += 2 * sum(map(weigh, shared)) / max(mass, 1e-6)
    return total * math.exp(-((len(one) - len(other)) ** 2) / 32)


@pytest.mark.parametrize("weighted", [False, True])
def test_agreement_is_the_expected_likeness(weighted):
    rng = np.random.default_rng(0)
    captions = [
        [rng.integers(5, 9, rng.integers(1, 7)).tolist() for _ in range(5)]
        for _ in range(4)
    ]
    ranks = rng.normal(size=(4, 5)).astype(np.float32)
    token_weights = np.arange(10, dtype=np.float32) if weighted else None
    token_ids = np.zeros((4, 5, 9), np.int32)
    for photo, row in itertools.product(range(4), range(5)):
        words = captions[photo][row]
        token_ids[photo, row, : len(words) + 2] = [2, *words, 3]
    found = agreement(
        tf.constant(token_ids),
        tf.constant(token_ids > 4),
        tf.constant(ranks),
        token_weights,
    )
    trust = np.exp(ranks)
    trust /= trust.sum(axis=1, keepdims=True)

    def weight_of(word):
        return float(word) if weighted else 1.0

    expected = [
        [
            sum(
                weight * likeness(one, other, weight_of)
                for weight, other in zip(trust[photo], own, strict=True)
            )
            for one in own
        ]
        for photo, own in enumerate(captions)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.fixture
def torn(always):
    """Alone the likeliest caption, of two words, is unlike all longer ones."""
    short = always({1: {5: 9.0}, 2: {8: 9.0}})
    tokens = [6, 7, 9, 10, 11, 6, 7, 9]
    long = always({i: {t: 5.0, 5: 3.0} for i, t in enumerate(tokens)})

    def predict(ids, mask):
        is_short = tf.reduce_sum(mask, axis=-1) == 4
        return tf.where(
            is_short[:, None, None], short(ids, mask), long(ids, mask)
        )

    return predict


def test_the_caption_that_others_resemble_is_kept(decode, torn, words_of):
    lengths = [[2, 3, 4, 5]]
    options = {"length_candidates": 4}
    alone = decode(torn, lengths, **options)
    assert len(words_of(alone)[0]) == 2
    together = decode(torn, lengths, consensus_draws=8, **options)
    assert len(words_of(together)[0]) > 2
    assert together["score"].shape == (1,)


def test_draws_do_not_depend_on_the_photos_beside(decode, always, words_of):
    predict = always({i: {5: 1.0, 7: 1.5, 9: 1.0} for i in range(8)})
    options = {"length_candidates": 2, "consensus_draws": 6}
    alone = words_of(decode(predict, [[3, 4]], **options))
    beside = words_of(decode(predict, [[6, 5], [3, 4], [3, 4]], **options))
    assert beside[1:] == alone * 2


def test_several_captions_of_a_consensus_differ(decode, always, words_of):
    predict = always({i: {5: 1.0, 7: 1.5, 9: 1.0} for i in range(8)})
    written = words_of(
        decode(predict, [[3, 4]], num_captions=3, consensus_draws=12)
    )
    assert len({tuple(words) for words in written}) == 3


def test_draws_that_are_asked_for_are_ranked_by_their_scores():
    options = DecodingOptions(temperature=1.0, consensus_draws=8)
    assert not options.by_consensus
    assert options.rows == 1


def test_a_negative_number_of_draws_is_told():
    with pytest.raises(ValueError, match="consensus_draws=-1"):
        DecodingOptions(consensus_draws=-1)
