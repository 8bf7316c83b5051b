"""What a run begins with: word frequencies, or another run's weights."""

import numpy as np

from bmt_keras.errors import InputError
from bmt_keras.models import BimodalMaskedLM


def copy_weights(source: BimodalMaskedLM, target: BimodalMaskedLM) -> None:
    """Sets a model's weights to those of another one of the same shape.

    A concept head that the other one lacks stays fresh.

    Args:
        source: The model that has learnt.
        target: The fresh model.

    Raises:
        InputError: A weight is missing or of another shape.
    """
    theirs, ours = source.weights, target.weights
    if source.concept_head is None and target.concept_head is not None:
        fresh = {id(weight) for weight in target.concept_head.weights}
        ours = [weight for weight in ours if id(weight) not in fresh]
    if len(theirs) != len(ours):
        raise InputError(
            f"The captioner to start from has {len(theirs)} weights, the "
            f"settings ask for {len(ours)}; give the preset and settings that "
            "it was trained with."
        )
    for old, new in zip(theirs, ours, strict=True):
        if tuple(old.shape) != tuple(new.shape):
            raise InputError(
                "The captioner to start from is of another shape: its "
                f"{old.path} is {tuple(old.shape)}, the settings ask for "
                f"{tuple(new.shape)}; give the preset and settings that it "
                "was trained with."
            )
        new.assign(old)


def start_from_frequencies(model: BimodalMaskedLM, counts: np.ndarray) -> None:
    """Sets the head's bias to the log-frequencies of the tokens.

    A fresh model would spend its first hundreds of steps on learning these.

    Args:
        model: The fresh model.
        counts: int, (vocabulary_size,), of the tokens in the captions.
    """
    shares = (counts + 0.5) / (counts + 0.5).sum()
    log_shares = np.log(shares)
    model.head.bias.assign(log_shares - log_shares.mean())
