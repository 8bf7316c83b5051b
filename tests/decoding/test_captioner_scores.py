import numpy as np
import pytest

from bmt_keras.errors import InputError


@pytest.fixture
def paths(sample_photos):
    return [photo.path for photo in sample_photos[1]]


def test_a_score_is_the_sum_over_tokens_masked_in_turn(tiny_captioner, paths):
    texts = ["a red square above a circle", "red"]
    long, short = tiny_captioner.score(paths[:2], texts)
    assert long.total == pytest.approx(sum(long.token_scores), rel=1e-5)
    assert long.mean == pytest.approx(np.mean(long.token_scores), rel=1e-5)
    assert len(long.token_scores) == len(long.tokens) == 6
    assert short.total == short.mean == short.token_scores[0]
    # A mask in the place of a word finds the word with its score.
    (filled,) = tiny_captioner.fill_mask(paths[1], "[MASK]")
    (found,) = tiny_captioner.score(paths[1], filled.text)
    assert found.total == pytest.approx(filled.score, rel=1e-4)


def test_neighbours_and_batches_do_not_change_scores(tiny_captioner, paths):
    texts = ["a red square above a circle", "red", "a green star"]
    together = tiny_captioner.score(paths[:3], texts)
    for path, text, score in zip(paths, texts, together, strict=False):
        (alone,) = tiny_captioner.score(path, text)
        assert alone.total == pytest.approx(score.total, rel=1e-4)
    batched = tiny_captioner.score(paths[:3], texts, batch_size=2)
    assert [s.total for s in batched] == pytest.approx(
        [s.total for s in together], rel=1e-4
    )


def test_rank_brings_the_likeliest_text_first(tiny_captioner, paths):
    texts = ["a red square above a circle", "red", "above above"]
    scores = tiny_captioner.score(paths[0], texts)
    ranked = tiny_captioner.rank(paths[0], texts)
    assert [s.text for s in ranked] == [
        s.text for s in sorted(scores, key=lambda s: -s.mean)
    ]
    assert tiny_captioner.rank(paths[0], []) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", r"texts\[0\]: expected words, found none"),
        ("red " * 17, "expected at most 16 tokens.*found 17"),
        ("a [MASK]", "special token"),
    ],
)
def test_bad_captions_are_not_scored(tiny_captioner, paths, text, message):
    with pytest.raises(InputError, match=message):
        tiny_captioner.score(paths[0], text)


def test_frozen_tower_captioner_takes_all_controls(
    frozen_tower_captioner, paths
):
    captioner = frozen_tower_captioner
    (caption,) = captioner.caption(paths[:1], keywords=["red"], length=4)
    assert "red" in caption.text.split()
    (filled,) = captioner.fill_mask(paths[0], "a red …")
    assert filled.text.startswith("a red ")
    assert captioner.rank(paths[0], ["red"])[0].total < 0
