"""How likely a model finds given captions."""

from typing import Any

from keras import ops

from bmt_keras.decoding.canvas import places_of, words_of
from bmt_keras.decoding.predictor import TokenPredictor, gather_places


def score_tokens(predictor: TokenPredictor, token_ids: Any) -> Any:
    """Pseudo-log-likelihood: each word's log-probability given all others.

    Each word is masked in turn (Salazar et al. 2020, arXiv 1910.14659); all
    these passes are one batch.

    Args:
        predictor: The model; it sees `length - 2` rows for each caption, and
            those of a caption are neighbours.
        token_ids: int32, (batch, length), `[CLS]` words `[SEP]` padding; at
            least one word in the longest.

    Returns:
        float32, (batch, length), 0 but at the words.
    """
    special = predictor.special
    batch, length = ops.shape(token_ids)[0], ops.shape(token_ids)[1]
    is_word = words_of(token_ids, special)
    turns = ops.arange(1, length - 1, dtype="int32")
    hidden = ops.equal(places_of(length), turns[:, None])  # (turns, length)
    shown = ops.where(hidden[None], special.mask_id, token_ids[:, None, :])
    shown = ops.reshape(shown, (batch * (length - 2), length))
    positions = ops.reshape(ops.tile(turns, (batch,)), (-1, 1))
    tokens = ops.reshape(token_ids[:, 1:-1], (-1, 1, 1))
    log_probs = predictor.log_probs_at(shown, positions, tokens)
    log_probs = ops.reshape(log_probs, (batch, length - 2))
    log_probs = ops.pad(log_probs, [[0, 0], [1, 1]])
    return ops.where(is_word, log_probs, 0.0)


def rescore_words(predictor: TokenPredictor, token_ids: Any) -> Any:
    """The words' log-probabilities in one pass that masks none of them.

    Args:
        predictor: The model.
        token_ids: int32, (rows, width), finished captions.

    Returns:
        float32, (rows, width), 0 but at the words.
    """
    is_word = words_of(token_ids, predictor.special)
    places = gather_places(is_word)
    words = ops.take_along_axis(token_ids, places, axis=1)
    found = predictor.log_probs_at(token_ids, places, words[..., None])[..., 0]
    # Words stand at places from 1 on, and the widest row has no padding.
    return ops.where(is_word, ops.pad(found, [[0, 0], [1, 1]]), 0.0)
