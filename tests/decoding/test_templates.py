import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import (
    GAP,
    DecodingOptions,
    TokenPredictor,
    fill_templates,
    score_tokens,
)
from bmt_keras.decoding.templates import expand_templates

MASK = 4


@pytest.fixture
def expand(special, length_log_probs):
    def run(template, lengths, candidates):
        canvas, _, _ = expand_templates(
            tf.constant([template]),
            length_log_probs(lengths),
            special=special,
            candidates=candidates,
        )
        return [
            [token for token in row if token not in (0, 2, 3)]
            for row in canvas.token_ids.numpy().tolist()
        ]

    return run


@pytest.fixture
def fill(predictor_of, length_log_probs):
    def run(predict, templates, lengths, **options):
        written = fill_templates(
            predictor_of(predict),
            length_log_probs(*lengths),
            tf.constant(templates),
            options=DecodingOptions(**options),
        )
        return {name: value.numpy() for name, value in written.items()}

    return run


def test_given_tokens_stay_and_masks_are_filled(fill, favour):
    written = fill(
        favour([0, 9, 6, 9, 7, 8]),
        [[5, MASK, 5, MASK], [MASK, 10, 0, 0]],
        [[1], [1]],
    )
    assert written["token_ids"].tolist() == [
        [2, 5, 6, 5, 7, 3, 0, 0],
        [2, 9, 10, 3, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_masks_and_gaps_begin_words(
    special, favour, length_log_probs, temperature
):
    # 9 would go on with a word: within a gap it may.
    predictor = TokenPredictor(
        favour([0, 9, 9, 9, 9, 9, 9]),
        dataclasses.replace(special, continuing=(9, 10)),
        vocabulary_size=12,
    )
    written = fill_templates(
        predictor,
        length_log_probs([5], [6]),
        tf.constant([[5, MASK, MASK, 6, MASK], [MASK, GAP, 7, GAP, 0]]),
        options=DecodingOptions(
            temperature=temperature,
            top_p=0.5,
            no_repeated_bigram=False,
            length_candidates=1,
        ),
    )
    words = written["token_ids"].numpy()
    assert words[0, [1, 4]].tolist() == [5, 6]
    # Of six words both gaps have two: MASK, GAP GAP, 7, GAP GAP.
    assert words[1, [4, 7]].tolist() == [7, 3]
    begin = {*words[0, [2, 3, 5]].tolist(), *words[1, [1, 2, 5]].tolist()}
    assert not {9, 10, *range(5)} & begin
    assert words[1, [3, 6]].tolist() == [9, 9]


def test_given_tokens_have_no_score(fill, favour):
    written = fill(favour([0, 9, 6, 9, 7]), [[5, MASK, 5, MASK]], [[1]])
    expected = 5.0 - np.log(np.exp(5.0) + 11)
    np.testing.assert_allclose(
        written["token_scores"],
        [[0, 0, expected, 0, expected, 0, 0, 0]],
        rtol=1e-5,
    )
    np.testing.assert_allclose(written["score"], [expected], rtol=1e-5)


def test_a_template_may_force_a_repeat_but_fillings_add_none(fill, favour):
    written = fill(favour([5] * 8), [[5, 5, MASK, 6]], [[1]])
    words = written["token_ids"][0, 1:5].tolist()
    assert words[:2] == [5, 5]
    assert words[3] == 6
    assert words[2] not in (5, 6)


def test_a_gap_takes_the_likeliest_numbers_of_words(expand):
    assert expand([5, GAP, 6], [4, 6, 3], 3) == [
        [5, MASK, MASK, 6],
        [5, MASK, MASK, MASK, MASK, 6],
        [5, MASK, 6],
    ]


def test_a_gap_takes_one_word_at_least(expand):
    assert expand([5, GAP, 6], [1, 2, 3], 1) == [[5, MASK, 6]]
    assert expand([GAP], [0, 1], 1) == [[MASK]]


def test_several_gaps_share_the_words_in_several_ways(expand):
    # 6 words, 4 of them for the gaps: evenly, then more in the first or last.
    assert expand([GAP, 5, GAP, 6], [6], 3) == [
        [MASK, MASK, 5, MASK, MASK, 6],
        [MASK, MASK, MASK, 5, MASK, 6],
        [MASK, 5, MASK, MASK, MASK, 6],
    ]


def test_a_template_without_gaps_has_one_canvas(expand):
    assert expand([5, MASK, 6], [1, 2, 6], 2) == [[5, MASK, 6]] * 2


def test_masks_beside_gaps_take_one_word_each(expand):
    assert expand([MASK, 5, GAP], [4], 1) == [[MASK, 5, MASK, MASK]]


def test_the_width_with_the_best_score_is_kept(fill, favour):
    model = favour([0, 5, 6, 7, 8, 9], strength=1.0)

    def predict(ids, mask):
        sure = tf.reduce_sum(mask, axis=-1) == 6  # four words
        return model(ids, mask) * tf.where(sure, 8.0, 2.0)[:, None, None]

    written = fill(predict, [[10, GAP, 11]], [[3, 5, 4]], length_candidates=3)
    assert written["token_ids"].tolist() == [[2, 10, 6, 7, 11, 3, 0, 0]]


def test_templates_of_any_width_need_no_new_trace(
    predictor_of, length_log_probs, favour
):
    traced = []

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 7), tf.float32),
            tf.TensorSpec((None, None), tf.int32),
        ]
    )
    def write(lengths, templates):
        traced.append(1)
        return fill_templates(
            predictor_of(favour([0, 5, 6, 7, 8, 9, 10])),
            lengths,
            templates,
            options=DecodingOptions(length_candidates=2),
        )["token_ids"]

    one = write(length_log_probs([3]), [[GAP, 11]]).numpy()
    two = write(length_log_probs([3], [5]), [[MASK, 11, GAP]] * 2).numpy()
    assert one.tolist() == [[2, 5, 6, 11, 3, 0, 0, 0]]
    assert two[:, :3].tolist() == [[2, 5, 11]] * 2
    assert len(traced) == 1


def test_pseudo_log_likelihood_masks_each_word_in_turn(predictor_of):
    seen = []

    def predict(ids, mask):
        seen.append(ids.numpy().tolist())
        # The logit of token 5 is the sum of what can be seen.
        visible = tf.reduce_sum(tf.cast(ids, tf.float32), axis=-1)
        return visible[:, None, None] / 10 * tf.one_hot([[5]], 12) + tf.zeros(
            (*ids.shape, 12)
        )

    token_ids = [[2, 5, 6, 3], [2, 5, 3, 0]]
    scores = score_tokens(predictor_of(predict), tf.constant(token_ids))
    assert seen == [[[2, 4, 6, 3], [2, 5, 4, 3], [2, 4, 3, 0], [2, 5, 4, 0]]]

    def log_prob(visible, logit):
        return logit - np.log(np.exp(visible / 10) + 11)

    np.testing.assert_allclose(
        scores,
        [
            [0, log_prob(15, 1.5), log_prob(14, 0), 0],
            [0, log_prob(9, 0.9), 0, 0],
        ],
        rtol=1e-5,
    )
