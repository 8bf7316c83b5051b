"""Captions given in part: masks and gaps between words that stay."""

from typing import Any, NamedTuple

from keras import ops

from bmt_keras.decoding.canvas import (
    NEVER,
    Canvas,
    SpecialTokens,
    frame_words,
    places_of,
)

GAP = -1  # in a template: one or more words, as many as it takes

# Ways to share words among gaps: evenly, all to the first, all to the last.
# The uneven ones are tried later than even ones of the same length.
_SPLIT_LOG_PROBS = (0.0, -1.0, -1.0)


class Candidates(NamedTuple):
    """Canvases of templates, those of a template side by side.

    Attributes:
        canvas: (batch * candidates, width).
        lengths: int32, (batch, candidates), numbers of words.
        is_start: bool, (batch * candidates, width), True where a word must
            begin: at masks, at each gap's first place, and after given words.
    """

    canvas: Canvas
    lengths: Any
    is_start: Any


def expand_templates(
    templates: Any,
    length_log_probs: Any,
    *,
    special: SpecialTokens,
    candidates: int,
) -> Candidates:
    """Tries gaps of several widths.

    Args:
        templates: int32, (batch, tokens): tokens that stay, masks for one
            word, `GAP` for one or more words, and padding at the end.
        length_log_probs: float32, (batch, max_caption_length + 1), of each
            number of words in the caption; the likeliest lengths are tried.
        special: The special tokens.
        candidates: Canvases for each template. A template without gaps has the
            same one over and over.

    Returns:
        The canvases.
    """
    is_gap = ops.equal(templates, GAP)
    used = ops.cast(ops.not_equal(templates, special.pad_id), "int32")
    gaps = ops.sum(ops.cast(is_gap, "int32"), axis=-1)[:, None]
    # A gap takes one word at least.
    least = ops.sum(used, axis=-1)[:, None]
    lengths, splits = _likeliest(length_log_probs, least, gaps, candidates)
    # Of each template's token the words it takes: (batch, candidates, tokens).
    number = ops.cumsum(ops.cast(is_gap, "int32"), axis=-1)[:, None, :]
    arguments = (lengths - least)[..., None], gaps[..., None], splits[..., None]
    more = _words_before(number, *arguments)
    more = more - _words_before(number - 1, *arguments)
    widths = used[:, None, :] + ops.where(is_gap[:, None, :], more, 0)
    ends = ops.cumsum(widths, axis=-1)
    # The template's token that each place of the canvas comes from.
    places = places_of(ops.max(lengths, initial=1) + 2)[0] - 1
    passed = ops.cast(ends[:, :, None, :] <= places[:, None], "int32")
    source = ops.sum(passed, axis=-1)
    source = ops.minimum(source, ops.shape(templates)[1] - 1)
    tokens = ops.where(is_gap, special.mask_id, templates)
    shape = ops.shape(source)
    tokens = ops.repeat(tokens[:, None, :], candidates, axis=1)
    words = ops.take_along_axis(tokens, source, axis=-1)
    words = ops.reshape(words, (-1, shape[2]))
    canvas = frame_words(words, ops.reshape(lengths, (-1, 1)), special)
    source = ops.reshape(source, ops.shape(words))
    # A place and the one before it are of two of the template's tokens.
    is_start = ops.not_equal(source[:, 1:], source[:, :-1])
    is_start = ops.pad(is_start, [[0, 0], [1, 0]])
    is_first = ops.equal(places_of(ops.shape(words)[1]), 1)
    return Candidates(canvas, lengths, ops.logical_or(is_start, is_first))


def _likeliest(
    length_log_probs: Any, least: Any, gaps: Any, candidates: int
) -> tuple[Any, Any]:
    """Lengths and ways to share: two times int32, (batch, candidates)."""
    longest = length_log_probs.shape[-1] - 1
    lengths = ops.arange(1, longest + 1, dtype="int32")[None]
    extra = lengths - least  # (batch, lengths)
    possible = ops.logical_or(
        ops.equal(extra, 0), ops.logical_and(extra > 0, gaps > 0)
    )
    several = ops.logical_and(extra > 0, gaps > 1)
    # Half of one word is rounded up to the first of two gaps.
    first = ops.logical_and(several, extra + gaps > 3)
    allowed = ops.stack([possible, first, several], axis=-1)
    splits = ops.convert_to_tensor(_SPLIT_LOG_PROBS, "float32")
    log_probs = ops.where(
        allowed, length_log_probs[:, 1:, None] + splits, NEVER
    )
    number = len(_SPLIT_LOG_PROBS)
    flat = ops.reshape(log_probs, (-1, longest * number))
    kinds = min(candidates, longest * number)
    values, index = ops.top_k(flat, kinds)
    index = ops.where(values > NEVER / 2, index, index[:, :1])
    index = ops.take(index, [row % kinds for row in range(candidates)], axis=1)
    index = ops.cast(index, "int32")
    return index // number + 1, index % number


def _words_before(number: Any, extra: Any, gaps: Any, split: Any) -> Any:
    """Extra words of the first gaps, their number included."""
    # In whole numbers: extra * number / gaps, rounded half up.
    even = (2 * extra * number + gaps) // (2 * ops.maximum(gaps, 1))
    first = ops.where(number > 0, extra, 0)
    last = ops.where(number >= gaps, extra, 0)
    others = ops.where(ops.equal(split, 1), first, last)
    return ops.where(ops.equal(split, 0), even, others)
