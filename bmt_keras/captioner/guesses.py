"""A captioner's guesses at masked tokens of captions by people."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bmt_keras.captioner.calibration import fit_calibration
from bmt_keras.captioner.captioner import Captioner
from bmt_keras.captioner.inputs import pad_rows
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.features import ImageFeatures

_IMAGES = 1000  # of a fit, at most, with one caption each


class MaskedGuesses(NamedTuple):
    """A captioner's guesses at masked tokens: arrays, (tokens,)."""

    predictions: np.ndarray  # the likeliest tokens
    labels: np.ndarray  # the masked ones
    log_probs: np.ndarray  # of the predictions, in nats, at most 0

    @property
    def correct(self) -> np.ndarray:
        """Which predictions are right."""
        return self.predictions == self.labels


def guess_masked_tokens(
    captioner: Captioner,
    features: np.ndarray,
    captions: Sequence[str],
    *,
    share: float = 0.15,
    seed: int = 0,
    batch_size: int = 64,
) -> MaskedGuesses:
    """Masks a share of the tokens of captions and lets the model guess them.

    Args:
        captioner: The captioner.
        features: (captions, ...), of `Captioner.read_features`.
        captions: A caption by people for each row of the features.
        share: Share of masked tokens; at least one token per caption.
        seed: Seed of the masks.
        batch_size: Captions at once.
    """
    tokenizer = captioner.tokenizer
    rows = tokenizer.encode(
        captioner.plain_captions(captions),
        sequence_length=captioner.settings.text.sequence_length,
    )
    token_ids = pad_rows(rows, tokenizer.pad_token_id)
    is_token = ~np.isin(token_ids, tokenizer.special_token_ids)
    counts = np.maximum(np.rint(share * is_token.sum(axis=1)), 1)
    rng = np.random.default_rng(seed)
    # The rank of a random number per token; others come behind the tokens.
    order = np.where(is_token, rng.random(is_token.shape), 2.0)
    ranks = order.argsort(axis=1).argsort(axis=1)
    masked = is_token & (ranks < counts[:, None])  # (captions, length)
    shown = np.where(masked, tokenizer.mask_token_id, token_ids)
    predictions, log_probs = np.empty_like(shown), np.empty(shown.shape)
    for start in range(0, len(shown), batch_size):
        batch = slice(start, start + batch_size)
        predictions[batch], log_probs[batch] = captioner.guess_tokens(
            features[batch], shown[batch]
        )
    # A log-probability may be rounded to more than 0.
    log_probs = np.minimum(log_probs[masked], 0.0)  # (tokens,)
    return MaskedGuesses(predictions[masked], token_ids[masked], log_probs)


def one_caption_each(
    images: Sequence[CaptionedImage], first: int = 0
) -> list[str]:
    """A caption of each image: its number `first`, `first` + 1, … in turn.

    Some data sets sort an image's captions, the longest first: all first ones,
    or all last ones, would be captions of one kind.
    """
    return [
        image.captions[(first + number) % len(image.captions)]
        for number, image in enumerate(images)
    ]


def calibrate(
    captioner: Captioner,
    images: Sequence[CaptionedImage],
    features: ImageFeatures,
) -> None:
    """Sets a captioner's `calibration`, fitted on images of no training.

    Args:
        captioner: The captioner.
        images: Images with captions by people; a caption of each is read.
        features: Their features; images without are left out.
    """
    images = [each for each in images if each.image_id in features.rows]
    images = images[:_IMAGES]
    guesses = guess_masked_tokens(
        captioner,
        features.array[[features.rows[each.image_id] for each in images]],
        # Others than those that evaluation looks at.
        one_caption_each(images, first=1),
        seed=1,
    )
    captioner.calibration = fit_calibration(guesses.log_probs, guesses.correct)
