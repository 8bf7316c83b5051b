"""What the model thinks of given captions, nothing written."""

from typing import Any

from keras import ops

from bmt_keras.decoding.canvas import in_frame, positions_in
from bmt_keras.decoding.predictor import TokenPredictor, gather_positions


def score_tokens(predictor: TokenPredictor, token_ids: Any) -> Any:
    """Pseudo-log-likelihood: each token's log-probability given all others.

    Each token is masked in turn (Salazar et al. 2020, arXiv 1910.14659); all
    these passes are candidates of one call.

    Args:
        predictor: The model.
        token_ids: int32, (images, length) or (images, candidates, length),
            framed and padded; at least one token in the longest.

    Returns:
        float32, as `token_ids`, 0 but at the tokens in the frame.
    """
    if len(token_ids.shape) == 2:
        return score_tokens(predictor, token_ids[:, None])[:, 0]
    special = predictor.special
    images, captions, length = ops.shape(token_ids)
    turns, number = ops.arange(1, length - 1, dtype="int32"), length - 2
    hidden = ops.equal(positions_in(token_ids), turns[:, None])
    shown = ops.where(hidden, special.mask_token_id, token_ids[..., None, :])
    # A candidate for each token of each caption.
    shown = ops.reshape(shown, (images, captions * number, length))
    positions = ops.broadcast_to(turns, (images, captions, number))
    positions = ops.reshape(positions, (images, captions * number, 1))
    tokens = ops.reshape(token_ids[..., 1:-1], ops.shape(positions))
    log_probs = predictor.log_probs_at(shown, positions, tokens[..., None])
    log_probs = ops.reshape(log_probs, (images, captions, number))
    log_probs = ops.pad(log_probs, [[0, 0], [0, 0], [1, 1]])
    return ops.where(in_frame(token_ids, special), log_probs, 0.0)


def guess_tokens(predictor: TokenPredictor, token_ids: Any) -> tuple[Any, Any]:
    """The likeliest token at each position, none of them special.

    Of `token_ids`, int32, (images, length), token ids, int32, and their
    log-probabilities, float32, of the same shape.
    """
    token_ids = token_ids[:, None]  # one candidate
    positions = positions_in(token_ids)
    positions = ops.broadcast_to(positions, ops.shape(token_ids))
    tokens, log_probs = predictor.likeliest_at(token_ids, positions, 1)
    return tokens[:, 0, :, 0], log_probs[:, 0, :, 0]


def mask_candidates(
    predictor: TokenPredictor,
    token_ids: Any,
    *,
    count: int,
    max_caption_tokens: int,
) -> tuple[Any, Any]:
    """The likeliest tokens at each mask, with all others still masked.

    Of `token_ids`, int32, (images, length), token ids, int32, and their
    probabilities, float32, both (images, max_caption_tokens, count), the first
    mask and the likeliest token first. There are fewer than `count` if the
    vocabulary has no more. Behind the last mask all are padding, of
    probability 0.
    """
    special = predictor.special
    token_ids = token_ids[:, None]  # one candidate
    is_mask = ops.equal(token_ids, special.mask_token_id)
    count = min(count, predictor.num_writable)
    tokens, log_probs = predictor.likeliest_at(
        token_ids, gather_positions(is_mask), count, is_start=is_mask
    )
    number = ops.sum(ops.cast(is_mask, "int32"), axis=-1)
    masks = ops.arange(max_caption_tokens, dtype="int32")
    is_used = (masks < number)[..., None]  # (images, masks, 1)

    def pad(values: Any, filler: Any) -> Any:
        images, _, masks, _ = ops.shape(values)
        unused = max_caption_tokens - masks
        padded = ops.pad(values[:, 0], [[0, 0], [0, unused], [0, 0]])
        padded = ops.reshape(padded, (images, max_caption_tokens, count))
        return ops.where(is_used, padded, filler)

    return pad(tokens, special.pad_token_id), pad(ops.exp(log_probs), 0.0)
