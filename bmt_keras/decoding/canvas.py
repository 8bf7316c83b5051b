"""What decoding writes on: framed captions of tokens and masks."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

NEVER = -1e9  # a log-probability that stands for impossible
LAST = NEVER / 4  # one of what is written where nothing else can be


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that frame a caption and of those never written.

    Attributes:
        pad_token_id: Padding.
        cls_token_id: Begin.
        sep_token_id: End.
        mask_token_id: Mask.
        banned: Ids never written; the four above belong among them.
        continuing: Ids that go on with the word before them. They are not
            written after a given word, which would become another.
    """

    pad_token_id: int
    cls_token_id: int
    sep_token_id: int
    mask_token_id: int
    banned: tuple[int, ...]
    continuing: tuple[int, ...] = ()


class Canvas(NamedTuple):
    """Captions to write, as wide as the longest: (images, candidates, width).

    A mask stands at each position to write, given tokens at others.
    """

    token_ids: Any  # int32, `[CLS]` tokens `[SEP]` padding
    scores: Any  # float32, log-probabilities of written tokens, 0 elsewhere
    # bool, where a word must begin, so that nothing goes on with the one
    # before; None for nowhere
    is_start: Any = None


def blank_canvas(lengths: Any, special: SpecialTokens) -> Canvas:
    """Makes captions of masks alone; `lengths`: int32, (images, candidates)."""
    width = ops.max(lengths, initial=1) + 2
    shape = (*ops.shape(lengths), width)
    masks = ops.full(shape, special.mask_token_id, "int32")
    return frame_tokens(masks, lengths, special)


def frame_tokens(
    token_ids: Any, lengths: Any, special: SpecialTokens
) -> Canvas:
    """Sets the frame around tokens that stand from position 1 on.

    `lengths`, int32, (images, candidates), are their numbers; elsewhere may
    stand anything.
    """
    positions, last = positions_in(token_ids), lengths[..., None] + 1
    ids = ops.where(positions < last, token_ids, special.pad_token_id)
    ids = ops.where(ops.equal(positions, last), special.sep_token_id, ids)
    ids = ops.where(ops.equal(positions, 0), special.cls_token_id, ids)
    return Canvas(ops.cast(ids, "int32"), ops.zeros(ops.shape(ids), "float32"))


def positions_in(values: Any) -> Any:
    """The positions of the last axis: int32, (width,)."""
    return ops.arange(ops.shape(values)[-1], dtype="int32")


def padding_mask_of(token_ids: Any, special: SpecialTokens) -> Any:
    """1 at tokens, 0 at padding: int32, as `token_ids`."""
    return ops.cast(ops.not_equal(token_ids, special.pad_token_id), "int32")


def in_frame(token_ids: Any, special: SpecialTokens) -> Any:
    """True between `[CLS]` and `[SEP]`: bool, as `token_ids`."""
    mask = padding_mask_of(token_ids, special)
    last = ops.sum(mask, axis=-1, keepdims=True) - 1
    positions = positions_in(token_ids)
    return (positions > 0) & (positions < last)


def pad_width(values: Any, width: int) -> Any:
    """Fills up to a fixed width with zeros: (images, candidates, width)."""
    images, candidates, used = ops.shape(values)
    padded = ops.pad(values, [[0, 0], [0, 0], [0, width - used]])
    return ops.reshape(padded, (images, candidates, width))
