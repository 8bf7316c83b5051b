"""What the model writes on: framed captions of words and masks."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

NEVER = -1e9  # a log-probability that stands for impossible
LAST = NEVER / 4  # one of what is written where nothing else can be


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that frame a caption and of those never written.

    Attributes:
        pad_id: Padding.
        cls_id: Begin.
        sep_id: End.
        mask_id: Mask.
        banned: Ids never written; the four above belong among them.
        continuing: Ids that go on with the word before them: they are not
            written after a given word, which would become another.
    """

    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    banned: tuple[int, ...]
    continuing: tuple[int, ...] = ()


class Canvas(NamedTuple):
    """Captions to fill, as wide as the longest one needs.

    Attributes:
        token_ids: int32, (rows, width), `[CLS]` words `[SEP]` padding; a mask
            at each word to write, given tokens at the others.
        scores: float32, (rows, width), log-probabilities of given tokens that
            have one, 0 elsewhere.
    """

    token_ids: Any
    scores: Any


def blank_canvas(lengths: Any, special: SpecialTokens) -> Canvas:
    """Captions of masks alone.

    Args:
        lengths: int32, (rows, 1), the numbers of words.
        special: The special tokens.

    Returns:
        The canvas.
    """
    places = places_of(ops.max(lengths, initial=1) + 2)
    return frame_words(
        ops.where(places <= lengths, special.mask_id, special.pad_id),
        lengths,
        special,
    )


def frame_words(words: Any, lengths: Any, special: SpecialTokens) -> Canvas:
    """Sets the frame around words.

    Args:
        words: int32, (rows, width), the words at places 1 to their number;
            anything elsewhere.
        lengths: int32, (rows, 1), the numbers of words.
        special: The special tokens.

    Returns:
        The canvas.
    """
    places = places_of(ops.shape(words)[1])
    ids = ops.where(places <= lengths, words, special.pad_id)
    ids = ops.where(ops.equal(places, lengths + 1), special.sep_id, ids)
    ids = ops.where(ops.equal(places, 0), special.cls_id, ids)
    return Canvas(ops.cast(ids, "int32"), ops.zeros(ops.shape(ids), "float32"))


def places_of(width: Any) -> Any:
    """The places of a canvas: int32, (1, width)."""
    return ops.expand_dims(ops.arange(width, dtype="int32"), 0)


def padding_mask_of(token_ids: Any, special: SpecialTokens) -> Any:
    """1 at tokens, 0 at padding: int32, (rows, width)."""
    return ops.cast(ops.not_equal(token_ids, special.pad_id), "int32")


def words_of(token_ids: Any, special: SpecialTokens) -> Any:
    """True between the frame's tokens: bool, (rows, width)."""
    last = ops.sum(padding_mask_of(token_ids, special), axis=-1) - 1
    places = places_of(ops.shape(token_ids)[1])
    return ops.logical_and(places > 0, places < ops.expand_dims(last, -1))


def pad_width(values: Any, width: int) -> Any:
    """Fills rows up to a fixed width with zeros: (rows, width)."""
    missing = width - ops.shape(values)[1]
    padded = ops.pad(values, [[0, 0], [0, missing]])
    return ops.reshape(padded, (-1, width))
