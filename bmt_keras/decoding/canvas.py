"""What decoding writes on: framed captions of tokens and masks.

`tokenizer` tells here and elsewhere which ids are special. It is a
`CaptionTokenizer` or what else has its ids as attributes.
"""

from typing import Any, NamedTuple

from keras import ops

from bmt_keras.data.tokenizer import CaptionTokenizer

NEVER = -1e9  # a log-probability that stands for impossible
LAST = NEVER / 4  # one of what is written where nothing else can be


class Canvas(NamedTuple):
    """Captions to write, as wide as the longest: (images, candidates, width).

    A mask stands at each position to write, given tokens at others.
    """

    token_ids: Any  # int32, `[CLS]` tokens `[SEP]` padding
    scores: Any  # float32, log-probabilities of written tokens, 0 elsewhere
    # bool, where a word must begin and none may go on; None for nowhere
    is_start: Any = None


def blank_canvas(lengths: Any, tokenizer: CaptionTokenizer) -> Canvas:
    """Makes captions of masks alone; `lengths`: int32, (images, candidates)."""
    width = ops.max(lengths, initial=1) + 2
    shape = (*ops.shape(lengths), width)
    masks = ops.full(shape, tokenizer.mask_token_id, "int32")
    return frame_tokens(masks, lengths, tokenizer)


def frame_tokens(
    token_ids: Any, lengths: Any, tokenizer: CaptionTokenizer
) -> Canvas:
    """Sets the frame around tokens that stand from position 1 on.

    `lengths`, int32, (images, candidates), are their numbers; the rest is free.
    """
    positions, last = positions_in(token_ids), lengths[..., None] + 1
    ids = ops.where(positions < last, token_ids, tokenizer.pad_token_id)
    ids = ops.where(ops.equal(positions, last), tokenizer.sep_token_id, ids)
    ids = ops.where(ops.equal(positions, 0), tokenizer.cls_token_id, ids)
    return Canvas(ops.cast(ids, "int32"), ops.zeros(ops.shape(ids), "float32"))


def padding_mask_of(token_ids: Any, tokenizer: CaptionTokenizer) -> Any:
    """1 at tokens, 0 at padding: int32, as `token_ids`."""
    return ops.cast(ops.not_equal(token_ids, tokenizer.pad_token_id), "int32")


def in_frame(token_ids: Any, tokenizer: CaptionTokenizer) -> Any:
    """True between `[CLS]` and `[SEP]`: bool, as `token_ids`."""
    mask = padding_mask_of(token_ids, tokenizer)
    last = ops.sum(mask, axis=-1, keepdims=True) - 1
    positions = positions_in(token_ids)
    return (positions > 0) & (positions < last)


def positions_in(values: Any) -> Any:
    """The positions of the last axis: int32, (width,)."""
    return ops.arange(ops.shape(values)[-1], dtype="int32")


def gather_positions(chosen: Any) -> Any:
    """The positions where `chosen` is True, before any others.

    Of bool, (images, candidates, width), int32, (images, candidates,
    positions): as many as the candidate with most of them has, at least one.
    """
    counts = ops.sum(ops.cast(chosen, "int32"), axis=-1)
    positions, width = positions_in(chosen), ops.shape(chosen)[-1]
    key = ops.where(chosen, positions, positions + width)
    order = ops.argsort(key, axis=-1)
    return ops.cast(order, "int32")[..., : ops.max(counts, initial=1)]


def spread_to_positions(values: Any, chosen: Any) -> Any:
    """Undoes `gather_positions` for values of the chosen positions.

    Of (images, candidates, positions, size), (images, candidates, width,
    size); what stands at the other positions means nothing.
    """
    index = ops.cumsum(ops.cast(chosen, "int32"), axis=-1) - 1
    index = ops.maximum(index, 0)[..., None]
    return ops.take_along_axis(values, index, axis=2)
