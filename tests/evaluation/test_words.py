import pytest

from bmt_keras.evaluation.words import split_caption, strip_marks


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A Dog RUNS.", "a dog runs"),
        ("a man,a woman; two dogs: three!", "a man a woman two dogs three"),
        ("I don't know, can't and won't", "i do n't know ca n't and wo n't"),
        ("the man's dog", "the man 's dog"),
        ("the man 's dog", "the man 's dog"),
        ("dogs' bowls", "dogs bowls"),
        ("they're we'll I'm", "they 're we 'll i 'm"),
        ("you've she'd", "you 've she 'd"),
        ("they shouldn't've", "they should n't 've"),
        ("the man\u2019s \u201cbig\u201d dog\u2026", "the man 's big dog"),
        ("black-and-white T-shirt", "black-and-white t-shirt"),
        ("a dog - running -- fast", "a dog running fast"),
        ("a dog\u2014running", "a dog running"),
        ("He said \"hi\" and 'bye'", "he said hi and bye"),
        ("It's 10:30 a.m. on 5th St.", "it 's 10:30 a.m. on 5th st."),
        ("flags of the U.S.", "flags of the u.s."),
        ("at 5:54pm", "at 5:54 pm"),
        ("1,000 people, 3.5 cats, 1/2", "1,000 people 3.5 cats 1/2"),
        ("a 4-wheeler from the '90s", "a 4-wheeler from the '90s"),
        ("-5 degrees and .99 cents", "-5 degrees and .99 cents"),
        ("$5.50 & 50% off", "$ 5.50 & 50 % off"),
        ("Texas A&M and at&t", "texas a&m and at & t"),
        ("salt &amp; pepper", "salt & pepper"),
        ("rock 'n' roll", "rock 'n' roll"),
        ("a man cannot gonna", "a man can not gon na"),
        ("a (big) dog", "a -lrb- big -rrb- dog"),
        ("and/or", "and/or"),
        ("two dogs...", "two dogs"),
        ("wow !!", "wow !!"),
        ("J. Smith in a v.", "j. smith in a v"),
        ("caf\u00e9  na\u00efve\n two", "caf\u00e9 na\u00efve two"),
        (" .,:;-?'`\"!", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_caption_splits_into_treebank_words(caption, words):
    assert split_caption(caption) == words.split()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Un carré là", "Un carre la"),
        ("cafe\u0301 ñandú", "cafe nandu"),
        ("\ufb01re & Å", "fire & A"),
        ("straße, łódź", "straße, łodz"),
        ("it\u2019s 5", "it\u2019s 5"),
    ],
)
def test_marks_of_letters_are_taken_off(text, plain):
    assert strip_marks(text) == plain
