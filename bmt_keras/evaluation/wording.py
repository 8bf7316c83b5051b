"""Figures of how captions are worded, without any reference."""

from collections.abc import Collection, Iterable
from itertools import pairwise

from bmt_keras.errors import InputError
from bmt_keras.evaluation.words import normalize_caption, split_caption


def measure_wording(
    captions: Collection[str], training_captions: Iterable[str] | None = None
) -> dict[str, float]:
    """Measures length, words and repetitions of captions.

    Words are those of `split_caption`: lower case, no punctuation.

    Args:
        captions: Written captions.
        training_captions: Captions that the model was trained on.

    Returns:
        `mean_length`, words per caption;
        `vocabulary_used`, number of distinct words in all captions;
        `repeating_captions`, the share of captions in which a word follows
        itself immediately ("a a dog"), in [0, 1];
        `repeated_words`, the share of all words that equal the word just
        before them in the same caption, in [0, 1], 0 if there is no word;
        with `training_captions` also `novel`, the share of captions, in
        [0, 1], of which they hold none of the same words; an empty one is
        never novel.

    Raises:
        InputError: If there is no caption.
    """
    if not captions:
        raise InputError("Figures need at least one caption. Received: none.")
    split = [split_caption(caption) for caption in captions]
    num_words = sum(map(len, split))
    repeats = [
        sum(word == before for before, word in pairwise(words))
        for words in split
    ]
    figures = {
        "mean_length": num_words / len(split),
        "vocabulary_used": float(len(set().union(*split))),
        "repeating_captions": sum(map(bool, repeats)) / len(split),
        "repeated_words": sum(repeats) / max(num_words, 1),
    }
    if training_captions is not None:
        # Case, punctuation and blanks do not make a caption novel.
        seen = {"", *map(normalize_caption, training_captions)}
        novel = [" ".join(words) not in seen for words in split]
        figures["novel"] = sum(novel) / len(split)
    return figures
