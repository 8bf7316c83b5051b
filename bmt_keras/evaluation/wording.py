"""Figures of how captions are worded, without any reference."""

from collections.abc import Collection, Iterable, Sequence
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
        with `training_captions` also `novel`, as `share_novel` counts it.

    Raises:
        InputError: If there is no caption.
    """
    _check_captions(captions)
    split = [split_caption(caption) for caption in captions]
    num_words = sum(map(len, split))
    repeats = [_count_repeats(words) for words in split]
    figures = {
        "mean_length": num_words / len(split),
        "vocabulary_used": float(len(set().union(*split))),
        "repeating_captions": sum(map(bool, repeats)) / len(split),
        "repeated_words": sum(repeats) / max(num_words, 1),
    }
    if training_captions is not None:
        figures["novel"] = share_novel(captions, training_captions)
    return figures


def share_novel(
    captions: Collection[str], training_captions: Iterable[str]
) -> float:
    """Returns the share of captions, in [0, 1], unseen in training.

    Captions are compared by `normalize_caption`: case, punctuation and blanks
    do not make a caption novel. An empty caption is never novel.

    Args:
        captions: Written captions.
        training_captions: Captions that the model was trained on.

    Raises:
        InputError: If there is no caption.
    """
    _check_captions(captions)
    seen = {"", *map(normalize_caption, training_captions)}
    novel = [normalize_caption(caption) not in seen for caption in captions]
    return sum(novel) / len(novel)


def _count_repeats(words: Sequence[str]) -> int:
    return sum(word == before for before, word in pairwise(words))


def _check_captions(captions: Collection[str]) -> None:
    if not captions:
        raise InputError("Figures need at least one caption. Received: none.")
