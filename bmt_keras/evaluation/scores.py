"""Scores of captions against references, without Java, Keras or TensorFlow.

BLEU, ROUGE-L and CIDEr-D come from `pycocoevalcap`, on words split by
`bmt_keras.evaluation.words`. Its class `Cider` computes what the paper and the
COCO server call CIDEr-D: n-gram counts clipped to the reference's, and a
Gaussian penalty (sigma 6) on the difference in length. Document frequencies
come from the references at hand, so that a score compares only with scores
on the same images; `CiderD` takes them from other captions, too.

A captioner that ignores its image may still score well. Two numbers tell:
`distinct`, the share of different captions, and the scores with the suffix
`_shuffled`, in which every image has another image's caption. A captioner
that looks has a shuffled score far below its own.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bmt_keras.errors import InputError
from bmt_keras.evaluation.words import normalize_caption, split_caption

Sentences = dict[int, list[str]]
_IDS_SHOWN = 5


class PassesPoint(NamedTuple):
    """The score with one number of decoding passes."""

    passes: int
    cider_d: float  # of the captions, in [0, 10]
    seconds: float  # that all captions took


def evaluate_captions(
    predictions: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    *,
    is_true: Callable[[int, str], bool] | None = None,
) -> dict[str, float]:
    """Scores captions, and shuffled captions for comparison.

    Takes and raises what `score_captions` does. `is_true` says whether a
    caption is true of an image, where that is known, as of generated pictures.

    Returns:
        The scores of `score_captions` and `cider_d_shuffled`; with `is_true`
        also `truth` and `truth_shuffled`, shares in [0, 1].
    """
    scores = score_captions(predictions, references)
    shuffled = shuffle_predictions(predictions)
    scores["cider_d_shuffled"] = _mean(
        score_each_caption(shuffled, references).values()
    )
    if is_true is not None:
        for name, captions in (("", predictions), ("_shuffled", shuffled)):
            scores[f"truth{name}"] = _mean(
                bool(is_true(*item)) for item in captions.items()
            )
    return scores


def score_captions(
    predictions: Mapping[int, str], references: Mapping[int, Sequence[str]]
) -> dict[str, float]:
    """Scores captions against references.

    An empty caption is a bad caption, not an error. References without a word
    are left out: ROUGE-L would give full marks to an empty caption for them.

    Args:
        predictions: One caption per image, by image id.
        references: At least one caption by people per image, for the same ids.

    Returns:
        `bleu_1` to `bleu_4` over all images (brevity penalty from the closest
        reference), `rouge_l` (beta 1.2) and `distinct`, all in [0, 1], and
        `cider_d` in [0, 10], 0 for a single image, which no word tells apart.

    Raises:
        InputError: If there is no image, an id has only a prediction or only
            references, or an image has no reference with a word.
        TypeError: If an image's references are one string.

    Reference:
        Papineni et al. 2002 (BLEU); Lin 2004 (ROUGE-L); Vedantam et al. 2015,
        https://arxiv.org/abs/1411.5726 (CIDEr-D, which clips n-gram counts, as
        its authors' code does, where the paper's formula has frequencies).
    """
    # Imported where a score is asked for: the package is an extra. The modules
    # used here read no file and unpickle nothing.
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.rouge.rouge import Rouge

    expected, received = split_sentences(predictions, references)
    # verbose=0: it prints to the standard output otherwise.
    bleu, _ = Bleu(4).compute_score(expected, received, verbose=0)
    rouge_l, _ = Rouge().compute_score(expected, received)
    captions = [caption for [caption] in received.values()]
    return {
        **{f"bleu_{n}": float(score) for n, score in enumerate(bleu, start=1)},
        "rouge_l": float(rouge_l),
        "cider_d": _mean(score_each_caption(predictions, references).values()),
        "distinct": len(set(captions)) / len(captions),
    }


def score_each_caption(
    predictions: Mapping[int, str], references: Mapping[int, Sequence[str]]
) -> dict[int, float]:
    """Scores every caption by CIDEr-D; takes what `score_captions` does.

    For n-grams of n = 1..4 words, g_n counts them, each times log(images /
    images with the n-gram in a reference). A caption c and its references r
    have, with lengths l (counted in word pairs),

        10 / 4 sum_n mean_r exp(-(l_c - l_r)^2 / (2 6^2))
            min(g_n(c), g_n(r)) . g_n(r) / (|g_n(c)| |g_n(r)|)

    and the score of all images is the mean over the images.

    Returns:
        CIDEr-D in [0, 10] by image id, sorted by id.

    Reference:
        Vedantam et al. 2015, https://arxiv.org/abs/1411.5726, section 5.
    """
    from pycocoevalcap.cider.cider import Cider

    expected, received = split_sentences(predictions, references)
    _, scores = Cider().compute_score(expected, received)
    # It scores the images in the references' order.
    return dict(zip(expected, map(float, scores), strict=True))


def shuffle_predictions(
    predictions: Mapping[int, str], seed: int = 0
) -> dict[int, str]:
    """Gives every image the caption of another image.

    The images are put on a ring in random order, and each takes the caption
    of the next; a single image keeps its own. `seed` alone settles the order.
    """
    ids = sorted(predictions)
    order = np.random.default_rng(seed).permutation(len(ids))
    following = np.roll(order, -1)
    return {
        ids[taker]: predictions[ids[giver]]
        for taker, giver in sorted(zip(order, following, strict=True))
    }


def measure_wording(
    captions: Collection[str], training_captions: Iterable[str] | None = None
) -> dict[str, float]:
    """Measures length, words and repetitions of captions.

    Words are those of `split_caption`: lower case, no punctuation.

    Returns:
        `mean_length`, words per caption;
        `vocabulary_used`, number of distinct words in all captions;
        `repeating_captions`, the share of captions in which a word follows
        itself immediately ("a a dog"), in [0, 1];
        `repeated_words`, the share of all words that equal the word just
        before them in the same caption, in [0, 1], 0 if there is no word;
        with `training_captions` also `novel`, the share of captions, in
        [0, 1], worded as none of them; an empty one is never novel.

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


def split_sentences(
    predictions: Mapping[int, str], references: Mapping[int, Sequence[str]]
) -> tuple[Sentences, Sentences]:
    """Checks and splits captions as pycocoevalcap's scorers take them.

    Returns:
        The references and the predictions (one per image), words joined by
        blanks, both by image id in the same order.
    """
    if not predictions:
        raise InputError("Scores need at least one prediction. Received: none.")
    for kind, missing in (
        ("prediction", references.keys() - predictions.keys()),
        ("reference", predictions.keys() - references.keys()),
    ):
        if missing:
            raise InputError(
                "Predictions and references must be of the same images. "
                f"Received no {kind} for {_name_ids(missing)}."
            )
    expected: Sentences = {}
    for image_id in sorted(references):
        texts = references[image_id]
        # A string is a sequence of strings, too: its letters.
        if isinstance(texts, str):
            raise TypeError(
                "The references of an image must be a sequence of captions. "
                f"Received {texts!r} for image {image_id}."
            )
        expected[image_id] = list(filter(None, map(normalize_caption, texts)))
    if empty := [key for key, texts in expected.items() if not texts]:
        raise InputError(
            "Every image needs a reference with at least one word. Received "
            f"none for {_name_ids(empty)}."
        )
    return expected, {
        image_id: [normalize_caption(predictions[image_id])]
        for image_id in expected
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _name_ids(ids: Iterable[int]) -> str:
    ids = sorted(ids)
    shown = ", ".join(str(image_id) for image_id in ids[:_IDS_SHOWN])
    rest = len(ids) - _IDS_SHOWN
    return f"image {shown}" + (f" and {rest} more" if rest > 0 else "")
