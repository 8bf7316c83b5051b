"""Captions written by a masked language model in a few parallel passes.

Mask-predict (Ghazvininejad et al. 2019, arXiv 1904.09324): all words start as
masks; each pass fills them, and the least certain ones are masked again, fewer
from pass to pass. Some candidate lengths are written side by side and the best
caption is kept. The module knows a callable that gives logits, no model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import ops

_NEVER = -1e9  # a log-probability that stands for impossible


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that frame a caption and of those never written.

    Attributes:
        pad_id: Padding.
        cls_id: Begin.
        sep_id: End.
        mask_id: Mask.
        banned: Ids never written; the four above belong among them.
    """

    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    banned: tuple[int, ...]


def mask_predict(
    predict_logits: Callable[[Any, Any], Any],
    length_log_probs: Any,
    *,
    special: SpecialTokens,
    vocabulary_size: int,
    passes: int,
    length_candidates: int,
) -> dict[str, Any]:
    """Writes captions.

    Args:
        predict_logits: Maps `token_ids` and `padding_mask`, both int32, (batch
            * length_candidates, length), to logits, float, (batch *
            length_candidates, length, vocabulary_size). The candidates of a
            photo are neighbouring rows.
        length_log_probs: float, (batch, max_caption_length + 1): of each number
            of words its log-probability; 0 words are never written.
        special: The special tokens.
        vocabulary_size: Number of tokens.
        passes: Calls of `predict_logits`, at least 1.
        length_candidates: Lengths tried for each photo, at least 1.

    Returns:
        Dictionary of
        `token_ids`: int32, (batch, max_caption_length + 2), `[CLS]` … `[SEP]`
        and padding;
        `token_scores`: float32, (batch, max_caption_length + 2),
        log-probability of each word when it was written, 0 elsewhere;
        `score`: float32, (batch,), their mean over the words.
    """
    lengths = _candidate_lengths(length_log_probs, length_candidates)
    token_ids, padding_mask = _blank_canvas(
        lengths, length_log_probs.shape[-1] + 1, special
    )
    is_word = ops.equal(token_ids, special.mask_id)
    allowed = ops.zeros((vocabulary_size,), "float32")
    allowed = ops.scatter_update(
        allowed,
        ops.reshape(ops.convert_to_tensor(special.banned, "int32"), (-1, 1)),
        ops.full((len(special.banned),), _NEVER, "float32"),
    )

    def write(step: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        ids, scores = state
        share = 1.0 - ops.cast(step, "float32") / passes
        masked = _least_certain(scores, is_word, lengths, share)
        canvas = ops.where(masked, special.mask_id, ids)
        logits = predict_logits(canvas, padding_mask)
        # Normalised before the ban, so that scores stay the model's own.
        log_probs = ops.log_softmax(ops.cast(logits, "float32")) + allowed
        best = ops.cast(ops.argmax(log_probs, axis=-1), "int32")
        return (
            ops.where(masked, best, ids),
            ops.where(masked, ops.max(log_probs, axis=-1), scores),
        )

    scores = ops.zeros(ops.shape(token_ids), "float32")
    token_ids, scores = ops.fori_loop(0, passes, write, (token_ids, scores))
    words = ops.cast(is_word, "float32")
    mean = ops.sum(scores * words, axis=-1) / ops.sum(words, axis=-1)
    return _keep_best(token_ids, scores * words, mean, length_candidates)


def _candidate_lengths(length_log_probs: Any, count: int) -> Any:
    """The likeliest lengths of each photo: int32, (batch * count, 1)."""
    _, lengths = ops.top_k(length_log_probs[:, 1:], count)
    return ops.reshape(ops.cast(lengths, "int32") + 1, (-1, 1))


def _blank_canvas(
    lengths: Any, width: int, special: SpecialTokens
) -> tuple[Any, Any]:
    """Captions of masks alone, int32, (rows, width), and their padding mask."""
    places = ops.expand_dims(ops.arange(width, dtype="int32"), 0)
    token_ids = ops.where(places <= lengths, special.mask_id, special.pad_id)
    token_ids = ops.where(places == lengths + 1, special.sep_id, token_ids)
    token_ids = ops.where(places == 0, special.cls_id, token_ids)
    return (
        ops.cast(token_ids, "int32"),
        ops.cast(places <= lengths + 1, "int32"),
    )


def _least_certain(scores: Any, is_word: Any, lengths: Any, share: Any) -> Any:
    """The share of words with the lowest scores: bool, (rows, width).

    The first pass has a share of 1 and masks every word.
    """
    # The small constant keeps 0.5 * 6 from becoming 2 after rounding.
    count = ops.floor(ops.cast(lengths, "float32") * share + 1e-4)
    order = ops.argsort(ops.where(is_word, scores, -_NEVER), axis=-1)
    rank = ops.argsort(order, axis=-1)
    return ops.logical_and(ops.cast(rank, "float32") < count, is_word)


def _keep_best(
    token_ids: Any, scores: Any, mean: Any, candidates: int
) -> dict[str, Any]:
    """Keeps the candidate with the best mean score of each photo."""
    mean = ops.reshape(mean, (-1, candidates))
    best = ops.expand_dims(ops.argmax(mean, axis=-1), -1)
    width = token_ids.shape[-1]

    def pick(values: Any) -> Any:
        grouped = ops.reshape(values, (-1, candidates, width))
        index = ops.expand_dims(best, -1)
        return ops.squeeze(ops.take_along_axis(grouped, index, axis=1), 1)

    return {
        "token_ids": pick(token_ids),
        "token_scores": pick(scores),
        "score": ops.squeeze(ops.take_along_axis(mean, best, axis=1), 1),
    }
