"""Models of a few lines, whose logits are known."""

import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import (
    DecodingOptions,
    SpecialTokens,
    TokenPredictor,
    mask_predict,
)

SPECIAL = SpecialTokens(0, 2, 3, 4, banned=(0, 1, 2, 3, 4))
VOCABULARY, WIDTH = 12, 8  # tokens; max_caption_length is 6


def _length_log_probs(*favourites):
    table = np.full((len(favourites), 7), -20.0, np.float32)
    for row, lengths in zip(table, favourites, strict=True):
        for rank, length in enumerate(lengths):
            row[length] = -float(rank) - 0.1
    return tf.constant(table)


def _always(logits):
    table = np.zeros((WIDTH, VOCABULARY), np.float32)
    for place, strengths in logits.items():
        for token, strength in strengths.items():
            table[place, token] = strength

    def predict(ids, mask):
        rows, width = tf.shape(ids)[0], tf.shape(ids)[1]
        return tf.tile(tf.constant(table)[None, :width], (rows, 1, 1))

    return predict


@pytest.fixture
def special():
    return SPECIAL


@pytest.fixture
def length_log_probs():
    """(photos, 7): each photo's lengths in falling order of probability."""
    return _length_log_probs


@pytest.fixture
def always():
    """A model of fixed logits, {place: {token: logit}}, 0 elsewhere."""
    return _always


@pytest.fixture
def favour():
    """A model that favours one token a place, whatever is asked."""

    def make(tokens, strength=5.0):
        return _always({i: {t: strength} for i, t in enumerate(tokens)})

    return make


@pytest.fixture
def predictor_of():
    def make(predict, **options):
        return TokenPredictor(
            predict, SPECIAL, vocabulary_size=VOCABULARY, **options
        )

    return make


@pytest.fixture
def decode(predictor_of):
    """Captions of photos with the given favourite lengths."""

    def run(predict, lengths, *, controls=None, at_positions=False, **options):
        written = mask_predict(
            predictor_of(predict, at_positions=at_positions),
            _length_log_probs(*lengths),
            options=DecodingOptions(**{"passes": 3, **options}),
            **(controls or {}),
        )
        return {name: value.numpy() for name, value in written.items()}

    return run


@pytest.fixture
def words_of():
    """The words of each row, without frame and padding."""
    return lambda written: [
        [int(token) for token in row if token > 4]
        for row in written["token_ids"]
    ]
