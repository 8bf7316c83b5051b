"""What is asked of captions: lengths, keywords, templates.

Each makes canvases whose masks are left to the passes.
"""

from typing import Any

from keras import ops

from bmt_keras.decoding.canvas import (
    NEVER,
    Canvas,
    frame_tokens,
    gather_positions,
    in_frame,
    padding_mask_of,
    positions_in,
)
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.predictor import TokenPredictor

GAP = -1  # in a template: one or more tokens, as many as it takes

# Ways to share tokens among gaps: evenly, all to the first, all to the last.
# The uneven ones are tried later than even ones of the same length.
_SPLIT_LOG_PROBS = (0.0, -1.0, -1.0)


# === Lengths ===


def restrict_lengths(length_log_probs: Any, bounds: Any) -> Any:
    """Makes lengths impossible that are out of bounds, (2,) or (images, 2)."""
    numbers = positions_in(length_log_probs)
    bounds = ops.reshape(bounds, (-1, 2))
    is_kept = (numbers >= bounds[:, :1]) & (numbers <= bounds[:, 1:])
    return ops.where(is_kept, length_log_probs, NEVER)


def candidate_lengths(length_log_probs: Any, options: DecodingOptions) -> Any:
    """The likeliest lengths of each image, never 0: (images, candidates).

    With draws, `options.num_candidates`. Without, as many as the image with
    the most possible lengths has, at least `options.num_captions`.
    """
    count = options.num_candidates
    distinct = min(options.num_lengths, count, length_log_probs.shape[-1] - 1)
    lengths = _likeliest(length_log_probs[:, 1:], distinct, count) + 1
    if options.is_sampling or options.uses_mbr:
        return lengths
    is_possible = ops.cast(length_log_probs[:, 1:] > NEVER / 2, "int32")
    possible = ops.sum(is_possible, axis=-1)
    return lengths[:, : ops.max(possible, initial=options.num_captions)]


def _likeliest(log_probs: Any, distinct: int, count: int) -> Any:
    """Indices of the likeliest that are possible, over and over, `count`."""
    values, index = ops.top_k(log_probs, distinct)
    index = ops.where(values > NEVER / 2, index, index[:, :1])
    over_and_over = [i % distinct for i in range(count)]
    return ops.cast(ops.take(index, over_and_over, axis=1), "int32")


# === Keywords ===


def place_keywords(
    predictor: TokenPredictor, canvas: Canvas, keywords: Any
) -> Canvas:
    """Sets keywords into blank canvases.

    One pass over the masks tells how likely each keyword is from each position
    on: the sum of its tokens' log-probabilities. Each in turn takes its best
    free position. Where one finds no room, all of them stand at the caption's
    start. No image's keywords, int32, (images or 1, keywords, tokens), may have
    more tokens than its canvases have masks.
    """
    # (images, keywords)
    sizes = ops.sum(padding_mask_of(keywords, predictor.tokenizer), axis=-1)
    is_mask = in_frame(canvas.token_ids, predictor.tokenizer)
    positions = gather_positions(is_mask)
    images, number, longest = ops.shape(keywords)
    asked = ops.reshape(keywords, (images, 1, 1, number * longest))
    log_probs = predictor.log_probs_at(canvas.token_ids, positions, asked)
    # (images, candidates, masks, keywords, tokens)
    log_probs = ops.reshape(log_probs, (*ops.shape(positions), number, longest))
    # Masks stand at positions from 1 on: (images, candidates, masks).
    is_frame = ~is_mask[..., 1:-1]
    starts = _choose_starts(log_probs, sizes, is_frame)
    # How far a mask is from the start of each keyword:
    # (images, candidates, masks, keywords).
    masks = positions_in(is_frame)
    offset = masks[:, None] - starts[:, :, None, :]
    inside = (offset >= 0) & (offset < sizes[:, None, None, :])
    index = ops.clip(offset, 0, longest - 1)[..., None]
    tokens = ops.take_along_axis(keywords[:, None, None], index, axis=-1)
    scores = ops.take_along_axis(log_probs, index, axis=-1)
    sides = [[0, 0], [0, 0], [1, 1]]
    is_given = ops.pad(ops.any(inside, axis=-1), sides)

    def write(values: Any, old: Any) -> Any:
        own = ops.where(inside, values[..., 0], 0)
        return ops.where(is_given, ops.pad(ops.sum(own, -1), sides), old)

    return Canvas(
        write(tokens, canvas.token_ids),
        write(scores, canvas.scores),
        # A word must begin after a given one.
        ops.pad(is_given[..., :-1], [[0, 0], [0, 0], [1, 0]]),
    )


def _choose_starts(log_probs: Any, sizes: Any, is_frame: Any) -> Any:
    """The first mask of each keyword: int32, (images, candidates, keywords)."""
    images, candidates, masks, number, longest = ops.shape(log_probs)
    end = [[0, 0], [0, 0], [0, longest]]
    numbers = ops.arange(masks, dtype="int32")
    # Of each start the masks that a keyword takes: (masks, tokens).
    span = numbers[:, None] + ops.arange(longest, dtype="int32")
    wanted = ops.arange(longest, dtype="int32") < sizes[..., None]
    padded = ops.pad(log_probs, [*end, [0, 0], [0, 0]])
    likely = ops.take_along_axis(padded, span[None, None, :, None], axis=2)
    total = ops.sum(ops.where(wanted[:, None, None], likely, 0.0), axis=-1)

    def place(k: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        starts, taken, fits = state
        size = ops.take(sizes, k, axis=1)[:, None, None]
        # How many masks are taken before each position, off the end all.
        used = ops.pad(ops.cast(taken, "int32"), end, constant_values=1)
        before = ops.cumsum(ops.pad(used, [[0, 0], [0, 0], [1, 0]]), axis=-1)
        behind = ops.take_along_axis(before, numbers + size, axis=-1)
        blocked = behind > before[..., :masks]
        likeliest = ops.where(blocked, NEVER, ops.take(total, k, axis=-1))
        start = ops.cast(ops.argmax(likeliest, axis=-1), "int32")[..., None]
        own = (numbers >= start) & (numbers < start + size)
        has_room = ~ops.all(blocked, axis=-1, keepdims=True)
        column = ops.equal(ops.arange(number, dtype="int32"), k)
        starts = ops.where(column, start, starts)
        return starts, taken | own, fits & has_room

    starts = ops.zeros((images, candidates, number), "int32")
    fits = ops.ones((images, candidates, 1), "bool")
    starts, _, fits = ops.fori_loop(0, number, place, (starts, is_frame, fits))
    packed = ops.cumsum(sizes, axis=-1) - sizes
    return ops.where(fits, starts, packed[:, None])


# === Templates ===


def expand_templates(
    predictor: TokenPredictor, templates: Any, candidates: int
) -> Canvas:
    """Makes canvases of templates as for `fill_templates`.

    Gaps get several widths, so that the caption has one of the likeliest
    lengths; a template without gaps has the same canvas over and over. A word
    must begin at masks, at each gap's first position, and after given tokens.
    """
    tokenizer, is_gap = predictor.tokenizer, ops.equal(templates, GAP)
    used = padding_mask_of(templates, tokenizer)
    gaps = ops.sum(ops.cast(is_gap, "int32"), axis=-1, keepdims=True)
    # A gap takes one token at least.
    least = ops.sum(used, axis=-1, keepdims=True)
    lengths, splits = _likeliest_splits(
        predictor.length_log_probs, least, gaps, candidates
    )
    # The positions that each of a template's tokens takes:
    # (images, candidates, tokens).
    number = ops.cumsum(ops.cast(is_gap, "int32"), axis=-1)[:, None, :]
    arguments = (lengths - least)[..., None], gaps[..., None], splits[..., None]
    more = _extra_tokens(number, *arguments)
    more = more - _extra_tokens(number - 1, *arguments)
    widths = used[:, None, :] + ops.where(is_gap[:, None, :], more, 0)
    ends = ops.cumsum(widths, axis=-1)
    # The template's token that each position of the canvas comes from:
    # (images, candidates, width).
    inner = ops.arange(ops.max(lengths, initial=1) + 2, dtype="int32") - 1
    passed = ops.cast(ends[:, :, None, :] <= inner[:, None], "int32")
    source = ops.sum(passed, axis=-1)
    source = ops.minimum(source, ops.shape(templates)[1] - 1)
    tokens = ops.where(is_gap, tokenizer.mask_token_id, templates)
    token_ids = ops.take_along_axis(tokens[:, None], source, axis=-1)
    canvas = frame_tokens(token_ids, lengths, tokenizer)
    # A position and the one before it are of two of the template's tokens.
    is_start = ops.not_equal(source[..., 1:], source[..., :-1])
    is_start = ops.pad(is_start, [[0, 0], [0, 0], [1, 0]])
    is_first = ops.equal(positions_in(token_ids), 1)
    return canvas._replace(is_start=is_start | is_first)


def _likeliest_splits(
    length_log_probs: Any, least: Any, gaps: Any, candidates: int
) -> tuple[Any, Any]:
    """Lengths and ways to share: two times int32, (images, candidates)."""
    longest = length_log_probs.shape[-1] - 1
    lengths = ops.arange(1, longest + 1, dtype="int32")
    extra = lengths - least  # (images, lengths)
    possible = ops.equal(extra, 0) | ((extra > 0) & (gaps > 0))
    several = (extra > 0) & (gaps > 1)
    # Half of one token is rounded up to the first of two gaps.
    first = several & (extra + gaps > 3)
    allowed = ops.stack([possible, first, several], axis=-1)
    splits = ops.convert_to_tensor(_SPLIT_LOG_PROBS, "float32")
    log_probs = ops.where(
        allowed, length_log_probs[:, 1:, None] + splits, NEVER
    )
    number = len(_SPLIT_LOG_PROBS)
    flat = ops.reshape(log_probs, (-1, longest * number))
    index = _likeliest(flat, min(candidates, longest * number), candidates)
    return index // number + 1, index % number


def _extra_tokens(number: Any, extra: Any, gaps: Any, split: Any) -> Any:
    """Extra tokens of the first `number` gaps."""
    # In whole numbers: extra * number / gaps, rounded half up.
    even = (2 * extra * number + gaps) // (2 * ops.maximum(gaps, 1))
    first = ops.where(number > 0, extra, 0)
    last = ops.where(number >= gaps, extra, 0)
    others = ops.where(ops.equal(split, 1), first, last)
    return ops.where(ops.equal(split, 0), even, others)
