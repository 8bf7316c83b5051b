import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import GAP, DecodingOptions, fill_templates
from bmt_keras.decoding.constraints import expand_templates

MASK = 4


@pytest.fixture
def expand(predictor_of, length_log_probs):
    def run(template, lengths, candidates):
        predictor = predictor_of(None, length_log_probs(lengths))
        canvas = expand_templates(
            predictor, tf.constant([template]), candidates
        )
        return [
            [token for token in candidate if token not in (0, 2, 3)]
            for candidate in canvas.token_ids[0].numpy().tolist()
        ]

    return run


@pytest.fixture
def fill(predictor_of, length_log_probs):
    def run(predict, templates, lengths, *, continuing=(), **options):
        written = fill_templates(
            predictor_of(
                predict, length_log_probs(*lengths), continuing=continuing
            ),
            tf.constant(templates),
            options=DecodingOptions(**{"length_candidates": 1, **options}),
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
        [[2, 5, 6, 5, 7, 3, 0, 0]],
        [[2, 9, 10, 3, 0, 0, 0, 0]],
    ]
    # Given tokens have no score.
    own = 5.0 - np.log(np.exp(5.0) + 11)
    np.testing.assert_allclose(
        written["token_scores"],
        [[[0, 0, own, 0, own, 0, 0, 0]], [[0, own, 0, 0, 0, 0, 0, 0]]],
        rtol=1e-5,
    )
    np.testing.assert_allclose(written["score"], [[own], [own]], rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_masks_and_gaps_begin_words(fill, favour, temperature):
    # 9 would go on with a word: within a gap it may.
    written = fill(
        favour([0, 9, 9, 9, 9, 9, 9]),
        [[5, MASK, MASK, 6, MASK], [MASK, GAP, 7, GAP, 0]],
        [[5], [6]],
        continuing=(9, 10),
        temperature=temperature,
        top_p=0.5,
    )
    tokens = written["token_ids"][:, 0]
    assert tokens[0, [1, 4]].tolist() == [5, 6]
    # Of six tokens both gaps have two: MASK, GAP GAP, 7, GAP GAP.
    assert tokens[1, [4, 7]].tolist() == [7, 3]
    begin = {*tokens[0, [2, 3, 5]].tolist(), *tokens[1, [1, 2, 5]].tolist()}
    assert not {9, 10, *range(5)} & begin
    assert tokens[1, [3, 6]].tolist() == [9, 9]


def test_a_template_may_force_a_repeat_but_fillings_add_none(fill, favour):
    written = fill(favour([5] * 8), [[5, 5, MASK, 6]], [[1]])
    tokens = written["token_ids"][0, 0, 1:5].tolist()
    assert tokens[:2] == [5, 5]
    assert tokens[3] == 6
    assert tokens[2] not in (5, 6)


@pytest.mark.parametrize(
    ("template", "lengths", "expected"),
    [
        # The likeliest lengths.
        (
            [5, GAP, 6],
            [4, 6, 3],
            [[5, MASK, MASK, 6], [5, MASK, MASK, MASK, MASK, 6], [5, MASK, 6]],
        ),
        # One token at least.
        ([5, GAP, 6], [1, 2, 3], [[5, MASK, 6]]),
        ([GAP], [0, 1], [[MASK]]),
        # Masks take one.
        ([MASK, 5, GAP], [4], [[MASK, 5, MASK, MASK]]),
        # Of 6 tokens 4 are for two gaps: evenly, then more in the first, then
        # more in the last.
        (
            [GAP, 5, GAP, 6],
            [6],
            [
                [MASK, MASK, 5, MASK, MASK, 6],
                [MASK, MASK, MASK, 5, MASK, 6],
                [MASK, 5, MASK, MASK, MASK, 6],
            ],
        ),
        # No gap: one canvas, over and over.
        ([5, MASK, 6], [1, 2, 6], [[5, MASK, 6]] * 2),
    ],
)
def test_gaps_take_the_likeliest_numbers_of_tokens(
    expand, template, lengths, expected
):
    assert expand(template, lengths, len(expected)) == expected


def test_the_width_with_the_best_score_is_kept(fill, favour, by_length):
    tokens = [0, 5, 6, 7, 8, 9]
    predict = by_length({4: favour(tokens, 8.0)}, favour(tokens, 2.0))
    written = fill(predict, [[10, GAP, 11]], [[3, 5, 4]], length_candidates=3)
    assert written["token_ids"].tolist() == [[[2, 10, 6, 7, 11, 3, 0, 0]]]


def test_templates_of_any_width_need_no_new_trace(
    predictor_of, length_log_probs, favour, compiled
):
    def fill(lengths, templates):
        return fill_templates(
            predictor_of(favour([0, 5, 6, 7, 8, 9, 10]), lengths),
            templates,
            options=DecodingOptions(length_candidates=2),
        )["token_ids"]

    inputs = ((None, 7), "float32"), ((None, None), "int32")
    write, traced = compiled(fill, *inputs)
    one = write(length_log_probs([3]), [[GAP, 11]]).numpy()
    two = write(length_log_probs([3], [5]), [[MASK, 11, GAP]] * 2).numpy()
    assert one.tolist() == [[[2, 5, 6, 11, 3, 0, 0, 0]]]
    assert two[:, 0, :3].tolist() == [[2, 5, 11]] * 2
    assert len(traced) == 1
