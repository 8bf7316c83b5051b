import pytest

from bmt_keras.errors import InputError
from bmt_keras.evaluation import measure_wording
from bmt_keras.evaluation.words import normalize_caption


def test_equal_words_make_captions_equal():
    assert normalize_caption("A Dog,  running!") == "a dog running"
    assert normalize_caption("A dog,\n running.") == "a dog running"
    assert normalize_caption("...") == ""


@pytest.mark.parametrize(
    ("captions", "training", "novel"),
    [
        (
            ["a dog runs", "TWO CATS!", "two dogs", "a dog"],
            iter(["A dog runs.", "Two cats"]),
            0.5,
        ),
        (["a dog runs", "two dogs"], [], 1),
        (["a dog runs.", ""], ["A dog runs."], 0),
    ],
)
def test_captions_of_the_training_set_are_not_novel(captions, training, novel):
    assert measure_wording(captions, training)["novel"] == novel


def test_wording_matches_a_count_by_hand():
    figures = measure_wording(
        ["A a a dog.", "the dog", "", "dog the dog, the"], ["The dog!"]
    )
    assert figures == {
        "mean_length": 10 / 4,
        "vocabulary_used": 3,
        "repeating_captions": 1 / 4,
        "repeated_words": 2 / 10,
        "novel": 2 / 4,
    }


def test_empty_captions_repeat_nothing():
    assert measure_wording(["", "."]) == {
        "mean_length": 0,
        "vocabulary_used": 0,
        "repeating_captions": 0,
        "repeated_words": 0,
    }


def test_wording_needs_a_caption():
    with pytest.raises(InputError, match="at least one caption"):
        measure_wording([])
