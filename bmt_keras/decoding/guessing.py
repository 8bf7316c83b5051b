"""The likeliest tokens at places of a caption, nothing written."""

from typing import Any

import tensorflow as tf

from bmt_keras.decoding.choosing import likeliest_tokens
from bmt_keras.decoding.predictor import TokenPredictor, gather_places


def guess_tokens(
    predictor: TokenPredictor, token_ids: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The likeliest token at each place.

    Args:
        predictor: The model.
        token_ids: int32, (rows, width), with masks.

    Returns:
        Token ids, int32, and their log-probabilities, float32, both (rows,
        width). Special tokens are never guessed.
    """
    places = tf.range(tf.shape(token_ids)[1])[None]
    places = tf.tile(places, (tf.shape(token_ids)[0], 1))
    logits = predictor.logits_at(token_ids, places)
    tokens, log_probs = likeliest_tokens(logits, predictor.ban(), 1)
    return tokens[..., 0], log_probs[..., 0]


def mask_candidates(
    predictor: TokenPredictor,
    token_ids: tf.Tensor,
    *,
    count: int,
    max_words: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The likeliest tokens at each mask, with all others still masked.

    Args:
        predictor: The model.
        token_ids: int32, (rows, width), `[CLS]` … `[SEP]`, padded.
        count: How many tokens; fewer if the vocabulary has no more.
        max_words: Masks of the answer.

    Returns:
        Token ids, int32, and their probabilities, float32, both (rows,
        max_words, count), the first mask and the likeliest token first. Behind
        the last mask all are padding, of probability 0.
    """
    special = predictor.special
    is_mask = tf.equal(token_ids, special.mask_id)
    places = gather_places(is_mask)
    logits = predictor.logits_at(token_ids, places)
    ban = predictor.ban_at(places, is_start=is_mask)
    count = min(count, predictor.num_writable)
    tokens, log_probs = likeliest_tokens(logits, ban, count)
    missing = max_words - tf.shape(tokens)[1]
    number = tf.reduce_sum(tf.cast(is_mask, tf.int32), axis=1)
    used = tf.sequence_mask(number, max_words)[..., None]

    def pad(values: tf.Tensor, filler: Any) -> tf.Tensor:
        padded = tf.pad(values, [[0, 0], [0, missing], [0, 0]])
        padded = tf.where(used, padded, filler)
        return tf.ensure_shape(padded, (None, max_words, count))

    return pad(tokens, special.pad_id), pad(tf.exp(log_probs), 0.0)
