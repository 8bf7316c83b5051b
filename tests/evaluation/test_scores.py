import math

import numpy as np
import pytest

from bmt_keras.errors import InputError
from bmt_keras.evaluation import (
    CiderD,
    evaluate_captions,
    score_captions,
    score_each_caption,
    shuffle_predictions,
)

REFERENCES = {
    1: ["A red dog runs on the grass.", "A dog is running outside"],
    2: ["Two cats sit on a sofa", "cats on the sofa"],
    3: ["A man rides a wave", "the man is surfing a big big wave"],
    4: ["A plate of food on the table", "some food"],
}
PREDICTIONS = {
    1: "a dog runs on the red grass",
    2: "two cats on a sofa",
    3: "a man is riding a big big big wave on a board",
    4: "a plate",
}


# === Scores ===


def test_bleu_matches_a_count_by_hand():
    scores = score_captions(
        {1: "A red dog runs.", 2: "a dog"},
        {1: ["a red cat runs"], 2: ["a dog"]},
    )
    # Words: 3 of 4 and 2 of 2. Pairs: "a red" of 3, and 1 of 1.
    assert scores["bleu_1"] == pytest.approx(5 / 6)
    assert scores["bleu_2"] == pytest.approx(math.sqrt(5 / 6 * 2 / 4))


def test_bleu_penalises_captions_shorter_than_the_closest_reference():
    scores = score_captions(
        {1: "a dog"}, {1: ["a dog runs fast", "a dog runs fast on the grass"]}
    )
    assert scores["bleu_1"] == pytest.approx(math.exp(1 - 4 / 2))
    assert scores["bleu_2"] == pytest.approx(math.exp(1 - 4 / 2))


def test_bleu_counts_a_repeated_word_as_often_as_a_reference_has_it():
    scores = score_captions({1: "big big big"}, {1: ["a big big dog"]})
    brevity = math.exp(1 - 4 / 3)
    assert scores["bleu_1"] == pytest.approx(brevity * 2 / 3)


def test_rouge_l_matches_a_count_by_hand():
    scores = score_captions(
        {1: "a red dog runs"}, {1: ["a dog runs fast away"]}
    )
    # The longest common subsequence is "a dog runs".
    precision, recall, weight = 3 / 4, 3 / 5, 1.2**2
    assert scores["rouge_l"] == pytest.approx(
        (1 + weight) * precision * recall / (recall + weight * precision)
    )
    assert scores["rouge_l"] == pytest.approx(0.6535714)


def test_cider_d_clips_and_penalises_length():
    references = {1: ["a big dog"], 2: ["two cats"]}
    exact = score_captions({1: "a big dog", 2: "two cats"}, references)
    stuffed = score_captions(
        {1: "a big dog " + "big dog " * 8, 2: "two cats"}, references
    )
    # Photo 2 alone is worth (1 + 1) / 4 * 10 / 2, as it has no longer n-grams.
    assert exact["cider_d"] == pytest.approx((7.5 + 5) / 2)
    assert stuffed["cider_d"] == pytest.approx(2.5, abs=0.1)


def test_each_caption_has_its_own_cider_d():
    references = {2: ["two cats"], 1: ["a big dog"], 3: ["a bus", "a car"]}
    scores = score_each_caption(
        {3: "a car", 2: "two cats", 1: "nothing"}, references
    )
    assert list(scores) == [1, 2, 3]
    # Of 1 to 4 words, the pairs of words are the longest that there are.
    assert scores[1] == 0
    assert scores[2] == pytest.approx(10 * 2 / 4)
    # "a" is in 2 of 3 photos, "bus" and "car" in 1: with "a car" as the one
    # reference 2 / 4, with "a bus" the cosine of single words, 1 / 4 of it.
    common, telling = math.log(3 / 2) ** 2, math.log(3) ** 2
    cosine = common / (common + telling)
    assert scores[3] == pytest.approx(10 * (2 / 4 + cosine / 4) / 2)


def test_mean_of_all_captions_is_the_score_of_the_photos():
    scores = score_each_caption(PREDICTIONS, REFERENCES)
    assert np.mean(list(scores.values())) == pytest.approx(
        score_captions(PREDICTIONS, REFERENCES)["cider_d"], rel=1e-12
    )
    with pytest.raises(InputError, match="no prediction for image 2"):
        score_each_caption({1: "a"}, {1: ["a"], 2: ["b"]})


def test_cider_d_of_a_package_is_that_of_the_formula():
    predictions = {**PREDICTIONS, 4: ""}
    references = {**REFERENCES, 2: [*REFERENCES[2], "..."]}
    expected = score_each_caption(predictions, references)
    assert 1 < np.mean(list(expected.values())) < 9
    cider = CiderD(references)
    for key, caption in predictions.items():
        assert cider.score(key, caption) == pytest.approx(
            expected[key], abs=1e-9
        )
    with pytest.raises(KeyError):
        cider.score(9, "a dog")
    assert CiderD({1: ["a dog"]}).score(1, "a dog") == 0


def test_document_frequencies_of_another_set_match_a_count_by_hand():
    documents = [["a big cat", "big"], ["big dog"], ["a bus"], ["two", "a"]]
    cider = CiderD({7: ["big dog", "..."]}, documents)
    # "big" is in 2 of 4 images, "dog" and "cat" in 1, no pair is common.
    common, telling = math.log(4 / 2) ** 2, math.log(4) ** 2
    expected = 10 / 4 * common / (common + telling)
    assert cider.score(7, "big cat") == pytest.approx(expected)
    assert expected == pytest.approx(0.5)
    # A word of no document is as rare as one of a single image.
    assert cider.score(7, "big giraffe") == pytest.approx(expected)
    assert CiderD({7: ["big dog"]}).score(7, "big dog") == 0


def test_images_score_alone_as_they_do_in_the_whole_set():
    whole = score_each_caption(PREDICTIONS, REFERENCES)
    some = {key: REFERENCES[key] for key in (2, 3)}
    cider = CiderD(some, REFERENCES.values())
    for key in some:
        score = cider.score(key, PREDICTIONS[key])
        assert score == pytest.approx(whole[key], abs=1e-9)
        assert score > 0.5


def test_perfect_captions_have_full_marks():
    references = {1: ["a red dog runs"], 2: ["two cats sleep here"]}
    scores = score_captions(
        {k: v[0] for k, v in references.items()}, references
    )
    names = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "distinct")
    assert scores == pytest.approx({**dict.fromkeys(names, 1), "cider_d": 10})


def test_case_punctuation_and_order_of_photos_do_not_change_scores():
    shouted = {k: PREDICTIONS[k].upper() + "!" for k in (3, 1, 4, 2)}
    assert score_captions(shouted, REFERENCES) == score_captions(
        PREDICTIONS, REFERENCES
    )


def test_empty_captions_score_nothing():
    scores = score_captions(
        {1: "", 2: "..."}, {1: ["a dog", " . "], 2: ["a cat"]}
    )
    assert scores.pop("distinct") == 0.5
    assert set(scores.values()) == {0.0}


def test_single_photo_has_no_cider_d():
    scores = score_captions({7: "a dog runs"}, {7: ["a dog runs"]})
    assert scores["cider_d"] == 0.0
    assert scores["bleu_1"] == pytest.approx(1)


def test_distinct_is_the_share_of_different_captions():
    predictions = {1: "a dog", 2: "A dog.", 3: "a cat", 4: "a dog"}
    assert score_captions(predictions, REFERENCES)["distinct"] == 0.5


def test_scores_print_nothing(capfd):
    evaluate_captions(PREDICTIONS, REFERENCES)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({}, {}, "at least one prediction"),
        ({1: "a"}, {1: ["a"], 2: ["b"]}, "no prediction for image 2"),
        ({1: "a", 2: "b"}, {1: ["a"]}, "no reference for image 2"),
        ({}, {1: ["a"]}, "at least one prediction"),
        (
            {9: "a"},
            {k: ["a"] for k in range(9)},
            "no prediction for image 0, 1, 2, 3, 4 and 4 more",
        ),
        ({1: "a"}, {1: []}, "at least one word.*image 1"),
        ({1: "a"}, {1: ["..."]}, "at least one word.*image 1"),
    ],
)
def test_photos_that_do_not_fit_are_named(predictions, references, message):
    with pytest.raises(InputError, match=message):
        score_captions(predictions, references)


def test_one_string_is_no_sequence_of_references():
    with pytest.raises(TypeError, match=r"sequence of captions.*image 1"):
        score_captions({1: "a dog"}, {1: "a dog"})


# === Shuffled captions and truth ===


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_shuffle_gives_every_photo_the_caption_of_another(count, seed):
    predictions = {k: f"caption {k}" for k in range(count)}
    shuffled = shuffle_predictions(predictions, seed)
    assert shuffled.keys() == predictions.keys()
    assert sorted(shuffled.values()) == sorted(predictions.values())
    assert all(shuffled[k] != predictions[k] for k in predictions)


def test_shuffle_depends_on_the_seed_alone():
    predictions = {k: str(k) for k in range(20)}
    backwards = dict(reversed(predictions.items()))
    first = shuffle_predictions(predictions, 1)
    assert shuffle_predictions(backwards, 1) == first
    assert shuffle_predictions(predictions, 2) != first


def test_single_photo_keeps_its_caption():
    assert shuffle_predictions({5: "a dog"}, 0) == {5: "a dog"}
    assert shuffle_predictions({}, 0) == {}


def test_evaluation_adds_the_score_of_shuffled_captions():
    metrics = evaluate_captions(PREDICTIONS, REFERENCES)
    shuffled = shuffle_predictions(PREDICTIONS)
    expected = score_captions(PREDICTIONS, REFERENCES)
    expected["cider_d_shuffled"] = score_captions(shuffled, REFERENCES)[
        "cider_d"
    ]
    assert metrics == expected
    assert metrics["cider_d_shuffled"] < metrics["cider_d"] / 4


def test_evaluation_with_a_rule_adds_truth_and_shuffled_truth():
    truths = {1: "dog", 2: "cats", 3: "man", 4: "rocket"}
    metrics = evaluate_captions(
        PREDICTIONS, REFERENCES, is_true=lambda key, text: truths[key] in text
    )
    assert metrics["truth"] == 0.75
    assert metrics["truth_shuffled"] == 0.0
