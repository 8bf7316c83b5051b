import pytest

from bmt_keras.errors import InputError
from bmt_keras.evaluation.wording import measure_wording, share_novel
from bmt_keras.evaluation.words import normalize_caption


def test_equal_words_make_captions_equal():
    assert normalize_caption("A Dog,  running!") == "a dog running"
    assert normalize_caption("A dog,\n running.") == "a dog running"
    assert normalize_caption("...") == ""


def test_captions_of_the_training_set_are_not_novel():
    training = ["A dog runs.", "Two cats"]
    captions = ["a dog runs", "TWO CATS!", "two dogs", "a dog"]
    assert share_novel(captions, training) == 0.5
    assert share_novel(captions, []) == 1
    assert share_novel(["a dog runs.", ""], iter(training)) == 0


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


@pytest.mark.parametrize(
    "measure", [measure_wording, lambda captions: share_novel(captions, ["a"])]
)
def test_wording_needs_a_caption(measure):
    with pytest.raises(InputError, match="at least one caption"):
        measure([])
