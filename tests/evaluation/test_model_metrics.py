import numpy as np
import pytest

from bmt_keras import captioner_figures as figures
from bmt_keras.evaluation import Calibration


@pytest.fixture(scope="module")
def val(tiny_captioner, sample_photos):
    photos = sample_photos[1]
    features = tiny_captioner.read_features(photo.path for photo in photos)
    return photos, features, [photo.captions[0] for photo in photos]


def test_guesses_are_at_masked_words_alone(tiny_captioner, val):
    _, features, captions = val
    guesses = figures.guess_masked_tokens(
        tiny_captioner, features, captions, share=0.3
    )
    ids = tiny_captioner.tokenizer.encode(captions)
    counts = [max(round(0.3 * (len(row) - 2)), 1) for row in ids]
    assert len(guesses.labels) == sum(counts)
    special = tiny_captioner.tokenizer.special_token_ids
    assert not np.isin(guesses.labels, special).any()
    assert not np.isin(guesses.predictions, special).any()
    assert (guesses.log_probs <= 0).all()


def test_every_word_may_be_masked(tiny_captioner, val):
    _, features, captions = val
    guesses = figures.guess_masked_tokens(
        tiny_captioner, features, captions, share=1.0
    )
    flat = [
        token
        for row in tiny_captioner.tokenizer.encode(captions)
        for token in row[1:-1]
    ]
    assert guesses.labels.tolist() == flat


def test_masks_depend_on_the_seed_alone(tiny_captioner, val):
    _, features, captions = val
    one, same, other = (
        figures.guess_masked_tokens(
            tiny_captioner, features, captions, seed=seed, batch_size=size
        ).labels.tolist()
        for seed, size in ((0, 64), (0, 3), (1, 64))
    )
    assert one == same != other


def test_accuracy_and_calibration_are_those_of_the_guesses():
    guesses = figures.MaskedGuesses(
        np.array([5, 6, 7, 8]),
        np.array([5, 6, 7, 9]),
        np.log([0.75, 0.75, 0.75, 0.75]),
    )
    measured, bins = figures.measure_masked_tokens(guesses, Calibration())
    assert measured["masked_accuracy"] == 0.75
    assert measured["calibration_error"] == pytest.approx(0)
    assert sum(each.count for each in bins) == 4
    cold, _ = figures.measure_masked_tokens(guesses, Calibration(0.5))
    assert cold["calibration_error"] == pytest.approx(0.9 - 0.75, abs=1e-6)
    assert cold["calibration_error_raw"] == pytest.approx(0)


def test_retrieval_is_measured_by_the_captioner_s_score(tiny_captioner, val):
    photos, features, captions = val
    measured = figures.measure_retrieval(
        tiny_captioner, features[:4], captions[:4]
    )
    paths = [photo.path for photo in photos[:4]]
    matrix = np.array(
        [
            [score.mean for score in tiny_captioner.score(path, captions[:4])]
            for path in paths
        ]
    )
    hits = (matrix.argmax(axis=0) == np.arange(4)).mean()
    assert measured["image_recall_at_1"] == pytest.approx(hits)
    assert measured["text_recall_at_5"] == 1


def test_passes_have_a_point_each(tiny_captioner, val):
    photos, features, _ = val
    references = {photo.image_id: photo.captions for photo in photos}
    points = figures.measure_passes(
        tiny_captioner, features, references, passes=(1, 3)
    )
    assert [point.passes for point in points] == [1, 3]
    assert all(point.seconds > 0 for point in points)


def test_confidence_of_written_captions_follows_the_calibration(
    tiny_captioner, val
):
    _, features, _ = val
    captioner = tiny_captioner
    before = captioner.caption_features(features)[0]
    assert before.confidences == pytest.approx(np.exp(before.token_scores))
    assert before.confidence == pytest.approx(np.exp(before.score), rel=1e-4)
    captioner.calibration = Calibration(2.0)
    try:
        after = captioner.caption_features(features)[0]
    finally:
        captioner.calibration = Calibration()
    assert after.text == before.text
    assert all(
        abs(new - 0.5) <= abs(old - 0.5) + 1e-9
        for new, old in zip(after.confidences, before.confidences, strict=True)
    )
