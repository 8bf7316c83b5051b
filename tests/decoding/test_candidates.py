import numpy as np
import pytest
import tensorflow as tf

VOCABULARY, WIDTH = 12, 8


@pytest.fixture
def by_length(favour):
    """Words 5, 6, 5 …; its strength at each number of words."""

    def make(strengths):
        model = favour([5, 6, 7, 8, 9, 10, 11, 5], strength=1.0)
        table = tf.constant([strengths.get(i, 2.0) for i in range(10)])

        def predict(ids, mask):
            factor = tf.gather(table, tf.reduce_sum(mask, axis=-1) - 2)
            return model(ids, mask) * factor[:, None, None]

        return predict

    return make


def lengths_of(written):
    return (written["token_ids"] > 4).sum(axis=1).tolist()


def test_the_candidate_length_with_the_best_mean_score_is_kept(
    decode, by_length
):
    written = decode(by_length({2: 8.0}), [[5, 2, 3]], length_candidates=3)
    assert lengths_of(written) == [2]


def test_the_length_prior_is_weighed_against_the_mean_score(decode, by_length):
    # Means: -0.029 of 2 words, -0.262 of 5; their lengths' log-probabilities:
    # -1.1 and -0.1. So 5 words win from a weight of 0.233 on.
    predict = by_length({2: 6.0, 5: 3.5})
    for weight, expected in ((0.2, [2]), (0.27, [5])):
        written = decode(
            predict, [[5, 2]], length_candidates=2, length_weight=weight
        )
        assert lengths_of(written) == expected
    mean = 3.5 - np.log(np.exp(3.5) + 11)
    np.testing.assert_allclose(written["score"], [mean], rtol=1e-5)


def test_rescoring_chooses_by_the_finished_caption(decode, by_length):
    early = by_length({2: 8.0})
    late = by_length({5: 8.0, 2: 1.0})
    canvases = []

    def predict(ids, mask):
        canvases.append(ids.numpy())
        done = ~tf.reduce_any(ids == 4)
        return tf.where(done, late(ids, mask), early(ids, mask))

    written = decode(
        predict, [[5, 2]], passes=1, length_candidates=2, rescore=True
    )
    assert len(canvases) == 2
    assert lengths_of(written) == [5]
    final = 8.0 - np.log(np.exp(8.0) + 11)
    np.testing.assert_allclose(
        written["final_token_scores"],
        [[0, *[final] * 5, 0, 0]],
        atol=1e-5,
    )
    first = 2.0 - np.log(np.exp(2.0) + 11)
    np.testing.assert_allclose(written["score"], [first], rtol=1e-5)


def test_a_caption_of_no_words_is_never_a_candidate(decode, favour):
    written = decode(favour([5] * 8), [[0, 1]], passes=1)
    assert written["token_ids"].tolist() == [[2, 5, 3, 0, 0, 0, 0, 0]]


def test_several_captions_come_best_first(decode, by_length):
    predict = by_length({1: 5.0, 2: 8.0, 3: 6.0, 4: 7.0, 5: 4.0})
    written = decode(
        predict,
        [[1, 2, 3, 4], [3, 4, 5, 6]],
        num_captions=3,
        passes=1,
        length_candidates=4,
    )
    assert lengths_of(written) == [2, 4, 3, 4, 3, 5]
    assert (np.diff(written["score"].reshape(2, 3)) <= 0).all()


def test_asked_length_is_kept_row_by_row(decode, favour):
    written = decode(
        favour([5, 6, 7, 8, 9, 10, 11, 5]),
        [[3, 2], [3, 2], [3, 2]],
        controls={"length": tf.constant([5, 0, 1])},
        length_candidates=2,
    )
    assert lengths_of(written) == [5, 3, 1]


@pytest.mark.parametrize(
    ("controls", "options", "expected"),
    [
        ({"length": [4, 4]}, {}, 2),
        ({"length": [4, 0]}, {}, 6),
        ({"length_bounds": [3, 4]}, {}, 4),
        ({"length_bounds": [[3, 3], [2, 3]]}, {}, 4),
        ({"length_bounds": [3, 4]}, {"num_captions": 3}, 6),
        ({"length": [4, 4]}, {"consensus_draws": 2}, 10),
        ({"length": [4, 4]}, {"temperature": 1.0}, 6),
        ({}, {"length_candidates": 6}, 12),
        ({}, {"length_candidates": 9}, 12),
    ],
)
def test_a_length_is_not_written_twice(
    decode, favour, controls, options, expected
):
    rows = []
    model = favour([5, 6, 7, 8, 9, 10, 11, 5])

    def predict(ids, mask):
        rows.append(int(tf.shape(ids)[0]))
        return model(ids, mask)

    written = decode(
        predict,
        [[3, 2], [2, 3]],
        controls={name: tf.constant(c) for name, c in controls.items()},
        **{"length_candidates": 3, **options},
    )
    assert set(rows) == {expected}
    kept = options.get("num_captions", 1)
    assert written["token_ids"].shape == (2 * kept, WIDTH)


def test_length_bounds_are_kept(decode, by_length):
    predict = by_length({1: 9.0, 2: 3.0, 6: 9.0})
    for bounds, expected in (
        ((2, 3), [2, 2]),
        ([(3, 4), (5, 6)], [3, 6]),
    ):
        written = decode(
            predict,
            [[1, 2, 3, 6], [1, 2, 3, 6]],
            controls={"length_bounds": tf.constant(bounds)},
            length_candidates=6,
        )
        assert lengths_of(written) == expected
