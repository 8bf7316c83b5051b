import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import DecodingOptions, ExpectedTokens, score_tokens
from bmt_keras.decoding.choosing import (
    expected_likeness,
    expected_overlap,
    rerank,
)

PROBABILITIES = np.array(
    [
        [0, 0, 0, 0, 0, 0.8, 0.1, 0.5, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0.2, 0.9, 0.0, 0, 0, 0, 0.4],
    ],
    np.float32,
)
RARITY = np.array([9, 9, 9, 9, 9, 1, 2, 3, 1, 1, 1, 2], np.float32)


def framed(captions, width=9):
    """Token ids of captions of images: (images, candidates, width)."""
    ids = np.zeros((len(captions), len(captions[0]), width), np.int32)
    for image, own in enumerate(captions):
        for candidate, tokens in enumerate(own):
            ids[image, candidate, : len(tokens) + 2] = [2, *tokens, 3]
    return ids


# === Expected overlap ===


def overlap_of(captions):
    ids = framed(captions)
    expected = ExpectedTokens(tf.constant(PROBABILITIES), tf.constant(RARITY))
    return expected_overlap(tf.constant(ids), tf.constant(ids > 4), expected)


def test_overlap_is_the_f1_of_what_is_said_and_what_is_expected():
    mass = PROBABILITIES[:, 5:] @ RARITY[5:]
    expected = [
        [
            2 * (0.8 + 3 * 0.5) / (1 + 3 + mass[0]),
            2 * (0.8 + 2 * 0.1) / (1 + 1 + 2 + mass[0]),
        ],
        [
            2 * (2 * 0.9) / (2 + mass[1]),
            2 * (2 * 0.4 + 0.2) / (2 + 1 + mass[1]),
        ],
    ]
    overlap = overlap_of([[[5, 7], [5, 8, 6]], [[6], [11, 5]]])
    np.testing.assert_allclose(overlap, expected, rtol=1e-5)


def test_a_token_said_again_weighs_double_and_is_shared_once():
    captions = [[7, 5], [7, 5, 7]]
    once, again = overlap_of([captions, captions]).numpy()[0]
    mass = PROBABILITIES[0] @ RARITY
    assert once == pytest.approx(2 * (1.5 + 0.8) / (4 + mass))
    assert again == pytest.approx(2 * (1.5 + 0.8) / (4 + 6 + mass))


def test_nothing_said_or_expected_is_no_overlap():
    none = ExpectedTokens(tf.zeros((1, 12)), tf.constant(RARITY))
    ids = tf.constant([[[2, 3, 0]]])
    assert float(expected_overlap(ids, ids > 4, none)[0, 0]) == 0


@pytest.mark.parametrize("samples", [0, 4])
def test_caption_with_the_expected_tokens_is_kept(
    decode, favour, by_length, tokens_of, samples
):
    """Two lengths: the shorter likelier, the longer with what is expected."""
    short, long = favour([5, 8], strength=9.0), favour([5, 6, 7, 8])
    predict = by_length({1: short}, long)
    rare = np.eye(12, dtype=np.float32)[7][None]

    def length(overlap_weight, expected):
        written = decode(
            predict,
            [[1, 3]],
            expected=expected,
            passes=2,
            length_candidates=2,
            overlap_weight=overlap_weight,
            mbr_samples=samples,
        )
        return len(tokens_of(written)[0])

    expected = ExpectedTokens(tf.constant(rare), tf.constant(RARITY))
    assert length(0.0, None) == length(4.0, None)
    if not samples:  # among draws the rare token counts by itself
        assert length(0.0, expected) == 1
    assert length(50.0, expected) == 3


# === Minimum Bayes risk ===


def ngrams(tokens, order):
    ends = range(order, len(tokens) + 1)
    return [tuple(tokens[end - order : end]) for end in ends]


def likeness(one, other, weight_of):
    """F1 of n-grams by weight, in which what is said again weighs double."""
    total = 0.0
    for order in (1, 2):

        def weigh(ngram):
            return sum(weight_of(token) for token in ngram) / len(ngram)

        mass = 0.0
        for tokens in (one, other):
            seen = ngrams(tokens, order)
            for i, ngram in enumerate(seen):
                mass += weigh(ngram) * (2 if ngram in seen[:i] else 1)
        shared = {*ngrams(one, order)} & {*ngrams(other, order)}
        total += 2 * sum(map(weigh, shared)) / max(mass, 1e-6)
    return total * math.exp(-((len(one) - len(other)) ** 2) / 32)


@pytest.mark.parametrize("weighted", [False, True])
def test_likeness_is_expected_over_all_candidates(weighted):
    rng = np.random.default_rng(0)
    captions = [
        [rng.integers(5, 9, rng.integers(1, 7)).tolist() for _ in range(5)]
        for _ in range(4)
    ]
    scores = rng.normal(size=(4, 5)).astype(np.float32)
    ids = framed(captions)
    alike = expected_likeness(
        tf.constant(ids),
        tf.constant(ids > 4),
        tf.constant(scores),
        np.arange(10, dtype=np.float32) if weighted else None,
    )
    trust = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = np.zeros((4, 5))
    for image, one, other in itertools.product(range(4), range(5), range(5)):
        expected[image, one] += trust[image, other] * likeness(
            captions[image][one],
            captions[image][other],
            float if weighted else lambda token: 1.0,
        )
    np.testing.assert_allclose(alike, expected, rtol=1e-5)


def test_the_caption_that_others_resemble_is_kept(
    decode, always, by_length, tokens_of
):
    # Alone the likeliest caption, of two tokens, is unlike all longer ones.
    short = always({1: {5: 9.0}, 2: {8: 9.0}})
    tokens = [6, 7, 9, 10, 11, 6, 7, 9]
    long = always({i: {t: 5.0, 5: 3.0} for i, t in enumerate(tokens)})
    predict = by_length({2: short}, long)
    options = {"length_candidates": 4}
    alone = decode(predict, [[2, 3, 4, 5]], **options)
    together = decode(predict, [[2, 3, 4, 5]], mbr_samples=8, **options)
    assert len(tokens_of(alone)[0]) == 2
    assert len(tokens_of(together)[0]) > 2
    assert together["score"].shape == (1, 1)


@pytest.fixture
def unsure(always):
    return always({i: {5: 1.0, 7: 1.5, 9: 1.0} for i in range(8)})


def test_mbr_samples_do_not_depend_on_the_other_images(
    decode, unsure, tokens_of
):
    options = {"length_candidates": 2, "mbr_samples": 6}
    alone = tokens_of(decode(unsure, [[3, 4]], **options))
    among = tokens_of(decode(unsure, [[6, 5], [3, 4], [3, 4]], **options))
    assert among[1:] == alone * 2


def test_several_captions_of_least_risk_differ(decode, unsure, tokens_of):
    written = decode(unsure, [[3, 4]], num_captions=3, mbr_samples=12)
    assert len({tuple(tokens) for tokens in tokens_of(written)}) == 3


def test_captions_that_are_all_drawn_are_ranked_by_their_scores():
    options = DecodingOptions(
        temperature=1.0, mbr_samples=8, length_candidates=1
    )
    assert not options.uses_mbr
    assert options.num_candidates == 1


# === Reranking ===

CAPTIONS = framed([[[5, 6, 7], [5, 6], [8, 9, 7]], [[9], [9], [7, 5]]], width=6)
RANKS = np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 0.5]], np.float32)
JUDGED = (CAPTIONS > 4)[..., :5]  # of a canvas of 5 positions


@pytest.fixture
def predictor(predictor_of, always):
    return predictor_of(always({1: {5: 2.0, 9: 1.0}, 2: {6: 3.0}, 3: {7: 1.0}}))


def reranked(predictor, judged=JUDGED, **options):
    captions = {
        "token_ids": tf.constant(CAPTIONS),
        "score": tf.constant(RANKS * 10),
        "rank": tf.constant(RANKS),
    }
    return rerank(
        predictor, captions, tf.constant(judged), DecodingOptions(**options)
    )


def test_best_are_kept_and_ranked_by_a_score_of_each_token(predictor):
    captions = reranked(predictor, rerank_top=2)
    # The second image's copy of its best caption makes way for the third.
    for image, best in enumerate([[1, 2], [0, 2]]):
        kept, ranks = CAPTIONS[image, best], RANKS[image, best]
        np.testing.assert_array_equal(captions["token_ids"][image], kept)
        np.testing.assert_array_equal(captions["score"][image], ranks * 10)
        scores = score_tokens(predictor, tf.constant(kept)).numpy()
        mean = scores.sum(1) / (kept > 4).sum(1)
        np.testing.assert_allclose(
            captions["rank"][image], ranks + 0.3 * mean, rtol=1e-5
        )


def test_tokens_that_were_given_are_not_judged(predictor):
    judged = JUDGED.copy()
    judged[..., 1] = False
    ranks = reranked(predictor, judged, rerank_top=1, num_captions=1)["rank"]
    scores = score_tokens(predictor, tf.constant(CAPTIONS[:1, 1])).numpy()
    assert float(ranks[0, 0]) == pytest.approx(3.0 + 0.3 * scores[0, 2])
    assert float(ranks[1, 0]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"rerank_top": 9}, 3), ({"rerank_top": 1, "num_captions": 2}, 2)],
)
def test_as_many_are_kept_as_there_are_or_are_asked_for(
    predictor, options, kept
):
    captions = reranked(predictor, **options)
    assert captions["token_ids"].shape == (2, kept, 6)
    assert captions["rank"].shape == (2, kept)


def test_caption_whose_tokens_go_together_is_chosen(
    decode, always, by_length, tokens_of
):
    """Two tokens are surer than three until one is scored given the other."""
    model = by_length(
        {2: always({1: {5: 6.0}, 2: {8: 6.0}})},
        always({1: {5: 5.0}, 2: {7: 5.0}, 3: {9: 5.0}}),
    )

    def predict(ids, mask):
        after_five = tf.pad(ids[..., :-1] == 5, [[0, 0], [0, 0], [1, 0]])
        unlike = tf.cast(after_five, tf.float32)[..., None] * tf.one_hot(8, 12)
        return model(ids, mask) - 12.0 * unlike

    options = {"length_candidates": 2, "passes": 1}
    assert tokens_of(decode(predict, [[2, 3]], **options)) == [[5, 8]]
    again = decode(predict, [[2, 3]], rerank_top=2, **options)
    assert tokens_of(again) == [[5, 7, 9]]


def test_an_asked_length_leaves_one_caption(decode, favour):
    written = decode(
        favour([0, 5, 6, 7]),
        [[3]],
        controls={"length_bounds": [3, 3]},
        rerank_top=4,
    )
    assert written["score"].shape == (1, 1)
    assert written["token_scores"].shape == written["token_ids"].shape
