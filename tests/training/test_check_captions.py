"""What is known of captions before training: cuts, letters, languages."""

from pathlib import Path

import pytest

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.evaluation.words import strip_marks
from bmt_keras.training.data import check_captions

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
WORDS += ["nine", "ten"]
CHINESE = ["\u4e00\u53ea\u72d7\u5728\u8349\u5730\u4e0a\u5954\u8dd1"] * 3


def make(texts, first=0):
    return [
        CaptionedImage(key, Path(f"{key}.jpg"), (text,))
        for key, text in enumerate(texts, first)
    ]


@pytest.fixture
def check(tiny_settings, caplog):
    """Checks captions; gives the warnings."""

    def check(train, val=None, *, known=None, **changes):
        caplog.clear()
        val = val or train[:1]
        tokenizer = CaptionTokenizer.from_captions(known or train)
        sides = make(train), make(val, len(train))
        settings = tiny_settings.replace(**changes)
        check_captions(sides, tokenizer, settings)
        return caplog.messages

    return check


def test_captions_that_lose_their_ends_are_counted(check):
    texts = [" ".join(WORDS[:n]) for n in [3] * 197 + [6, 9, 10]]
    assert check(texts, sequence_length=12) == []
    for length, found in ((10, "2 of 201"), (8, "2 of 201"), (7, "3 of 201")):
        (line,) = check(texts, sequence_length=length)
        assert line.startswith(f"{found} captions lose their ends: they are")
        assert line.endswith("; 8 holds 99 % of all captions, 12 all.")
    texts = [f"{text}." for text in texts]
    assert check(texts, sequence_length=12, drop_final_period=True) == []


def test_letters_are_reported_once(check):
    lines = check(
        ["un carr\u00e9 \u00e0 c\u00f4t\u00e9"] * 2, ["le chien \U0001f415"]
    )
    said = "Letters that the vocabulary"
    assert lines == [
        f"{said} writes without marks: \u00e0 \u00e9 \u00f4",
        f"{said} lacks: h i l \U0001f415",
    ]
    assert check(["A dog\u2019s ball \u00bd"], ["A DOG"]) == []


def test_final_sigma_is_scored_as_it_is_written():
    assert (
        strip_marks("\u039f\u0394\u039f\u03a3").lower()
        == "\u03bf\u03b4\u03bf\u03c3"
    )


def test_language_without_spaces_is_told_what_to_do(check, caplog):
    with pytest.raises(
        InputError, match=r"4 of 4 captions, .* \(--vocabulary\)"
    ):
        check(CHINESE)
    check([" ".join(text) for text in CHINESE])
    check(["a dog runs", "two dogs", *CHINESE])


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (["xyz", "zyx"], ["yy"], "with words of the vocabulary, found none"),
        (["xyz !", "zyx"], ["y !"], "with words of the vocabulary, found none"),
        (["a dog"], ["a dog", "!", "..."], "Received none for image 2, 3"),
    ],
)
def test_captions_that_teach_nothing_are_refused(check, train, val, message):
    with pytest.raises(InputError, match=message):
        check(train, val, known=["a dog !"])
