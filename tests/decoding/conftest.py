"""Models of a few lines, whose logits are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.decoding import (
    DecodingOptions,
    TokenPredictor,
    mask_predict,
)

VOCABULARY, WIDTH = 12, 8  # tokens; max_caption_tokens is 6


def _tokenizer_of(continuing=()):
    """The ids of a tokenizer, without its texts."""
    return SimpleNamespace(
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        mask_token_id=4,
        special_token_ids=[0, 1, 2, 3, 4],
        continuing_token_ids=list(continuing),
        vocabulary_size=VOCABULARY,
    )


def _length_log_probs(*favourites):
    table = np.full((len(favourites), 7), -20.0, np.float32)
    for row, lengths in zip(table, favourites, strict=True):
        for rank, length in enumerate(lengths):
            row[length] = -float(rank) - 0.1
    return tf.constant(table)


def _always(logits):
    table = np.zeros((WIDTH, VOCABULARY), np.float32)
    for position, strengths in logits.items():
        for token, strength in strengths.items():
            table[position, token] = strength

    def predict(ids, mask):
        width = tf.shape(ids)[2]
        shape = (*tf.unstack(tf.shape(ids)), VOCABULARY)
        return tf.broadcast_to(tf.constant(table)[:width], shape)

    return predict


def _predictor_of(predict, lengths=None, *, continuing=(), expected=None):
    def predict_logits(ids, mask, *, mask_positions):
        return tf.gather(predict(ids, mask), mask_positions, batch_dims=2)

    return TokenPredictor(
        predict_logits,
        _tokenizer_of(continuing),
        length_log_probs=lengths,
        expected=expected,
    )


@pytest.fixture
def tokenizer():
    return _tokenizer_of()


@pytest.fixture
def length_log_probs():
    """(images, 7): each image's lengths in falling order of probability."""
    return _length_log_probs


@pytest.fixture
def always():
    """A model of fixed logits, {position: {token: logit}}, 0 elsewhere.

    As all models here it maps `ids` and `mask`, (images, candidates, width),
    to the logits of all positions.
    """
    return _always


@pytest.fixture
def favour():
    """A model that favours one token per position, whatever is asked."""

    def make(tokens, strength=5.0):
        return _always({i: {t: strength} for i, t in enumerate(tokens)})

    return make


@pytest.fixture
def by_length():
    """A model for captions of some numbers of tokens, another for others."""

    def make(models, other):
        def predict(ids, mask):
            length = tf.reduce_sum(mask, axis=-1)[..., None, None] - 2
            logits = other(ids, mask)
            for number, model in models.items():
                logits = tf.where(length == number, model(ids, mask), logits)
            return logits

        return predict

    return make


@pytest.fixture
def recorded():
    """A model, and the canvases that it has seen."""

    def make(model):
        canvases = []

        def predict(ids, mask):
            canvases.append(ids.numpy())
            return model(ids, mask)

        return predict, canvases

    return make


@pytest.fixture
def predictor_of():
    return _predictor_of


@pytest.fixture
def compiled():
    """A function as a graph for inputs of some shapes, and its traces."""

    def make(function, *inputs):
        traces = []

        def run(*arguments):
            traces.append(1)
            return function(*arguments)

        signature = [tf.TensorSpec(shape, dtype) for shape, dtype in inputs]
        return tf.function(run, input_signature=signature), traces

    return make


@pytest.fixture
def decode():
    """Captions of images with the given favourite lengths."""

    def run(predict, lengths, *, controls=None, expected=None, **options):
        written = mask_predict(
            _predictor_of(
                predict, _length_log_probs(*lengths), expected=expected
            ),
            options=DecodingOptions(
                **{"passes": 3, "length_candidates": 1, **options}
            ),
            **{k: tf.constant(v) for k, v in (controls or {}).items()},
        )
        return {name: value.numpy() for name, value in written.items()}

    return run


@pytest.fixture
def tokens_of():
    """The tokens of each caption, without frame and padding, in one list."""
    return lambda written: [
        [int(token) for token in caption if token > 4]
        for caption in written["token_ids"].reshape(-1, WIDTH)
    ]
