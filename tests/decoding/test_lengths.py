import numpy as np
import pytest

TOKENS = [5, 6, 7, 8, 9, 10, 11, 5]


@pytest.fixture
def sure_of(favour, by_length):
    """A model with a strength for each number of tokens."""

    def make(strengths):
        models = {n: favour(TOKENS, s) for n, s in strengths.items()}
        return by_length(models, favour(TOKENS, 2.0))

    return make


def lengths_of(written):
    return (written["token_ids"] > 4).sum(axis=-1).tolist()


def test_the_candidate_length_with_the_best_mean_score_is_kept(decode, sure_of):
    written = decode(sure_of({2: 8.0}), [[5, 2, 3]], length_candidates=3)
    assert lengths_of(written) == [[2]]


def test_a_caption_of_no_tokens_is_never_a_candidate(decode, favour):
    written = decode(favour([5] * 8), [[0, 1]], passes=1)
    assert written["token_ids"].tolist() == [[[2, 5, 3, 0, 0, 0, 0, 0]]]


def test_several_captions_come_best_first(decode, sure_of):
    written = decode(
        sure_of({1: 5.0, 2: 8.0, 3: 6.0, 4: 7.0, 5: 4.0}),
        [[1, 2, 3, 4], [3, 4, 5, 6]],
        num_captions=3,
        passes=1,
        length_candidates=4,
    )
    assert lengths_of(written) == [[2, 4, 3], [4, 3, 5]]
    assert (np.diff(written["score"]) <= 0).all()


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([2, 3], [[2], [2]]),
        ([[3, 4], [5, 6]], [[3], [6]]),
        ([[5, 5], [1, 6]], [[5], [1]]),
    ],
)
def test_length_bounds_are_kept(decode, sure_of, bounds, expected):
    written = decode(
        sure_of({1: 9.0, 2: 3.0, 6: 8.0}),
        [[1, 2, 3, 6], [1, 2, 3, 6]],
        controls={"length_bounds": bounds},
        length_candidates=6,
    )
    assert lengths_of(written) == expected


@pytest.mark.parametrize(
    ("bounds", "options", "expected"),
    [
        ([4, 4], {}, 1),
        ([[4, 4], [1, 6]], {}, 3),
        ([3, 4], {}, 2),
        ([[3, 3], [2, 3]], {}, 2),
        ([3, 4], {"num_captions": 3}, 3),
        ([4, 4], {"mbr_samples": 2}, 5),
        ([4, 4], {"temperature": 1.0}, 3),
        ([1, 6], {"length_candidates": 6}, 6),
        ([1, 6], {"length_candidates": 9}, 6),
    ],
)
def test_a_length_is_not_written_twice(
    decode, favour, recorded, bounds, options, expected
):
    predict, canvases = recorded(favour(TOKENS))
    written = decode(
        predict,
        [[3, 2], [2, 3]],
        controls={"length_bounds": bounds},
        **{"length_candidates": 3, **options},
    )
    assert {ids.shape[:2] for ids in canvases} == {(2, expected)}
    kept = options.get("num_captions", 1)
    assert written["token_ids"].shape == (2, kept, 8)
