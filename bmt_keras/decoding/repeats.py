"""The guard against "a a man" and "a man a man"."""

from collections.abc import Callable
from typing import Any

from keras import ops

# A token may have to differ from its neighbours, and from those next to them
# if both would end or begin the same pair.
_OFFSETS = (-1, 1, -2, 2)


def avoid_repeats(
    token_ids: Any, choices: Any, certainty: Any, *, written: Any, known: Any
) -> Any:
    """Chooses tokens so that none repeats its neighbour.

    Positions written in one pass do not see each other. The more certain one
    keeps its favourite; the less certain one takes its next choice that
    repeats neither a neighbouring token nor two tokens in a row. Tokens that
    were written before or are given are more certain than all others. Where
    all choices repeat, pairs may repeat before neighbours do.

    All are (images, candidates, width): `token_ids` so far; `choices`, with an
    axis more, the favourite first; `certainty`, at most 0; `written`, where a
    token is to be chosen; `known`, where one stands or is to be chosen. The
    result, int32, tells which choice is taken, 0 where none is.
    """
    at_offsets = _rules(certainty, written, known)
    count = ops.shape(choices)[-1]
    ranks = ops.arange(count, dtype="int32")

    def tokens_of(taken: Any) -> Any:
        chosen = ops.take_along_axis(choices, taken[..., None], axis=-1)
        return ops.where(written, chosen[..., 0], token_ids)

    def choose(taken: Any, _: Any) -> tuple[Any, Any]:
        others, must_differ = at_offsets(tokens_of(taken))
        # (images, candidates, width, offsets, choices)
        same = ops.equal(choices[..., None, :], others[..., None])
        clash = must_differ[..., None] & same
        repeats = ops.cast(ops.any(clash[..., :2, :], axis=-2), "int32")
        repeats_pair = ops.cast(ops.any(clash[..., 2:, :], axis=-2), "int32")
        cost = ranks + count * repeats_pair + 2 * count * repeats
        better = ops.cast(ops.argmin(cost, axis=-1), "int32")
        better = ops.where(written, better, 0)
        return better, ops.any(ops.not_equal(better, taken))

    favourites = ops.zeros_like(token_ids)
    tokens = tokens_of(favourites)
    others, must_differ = at_offsets(tokens)
    clash = must_differ & ops.equal(others, tokens[..., None])
    # Each choice depends on more certain positions alone, so that the loop
    # ends after as many rounds as their longest chain has; mostly without one.
    taken, _ = ops.while_loop(
        lambda _, changed: changed, choose, (favourites, ops.any(clash))
    )
    return taken


def _rules(
    certainty: Any, written: Any, known: Any
) -> Callable[[Any], tuple[Any, Any]]:
    """Maps tokens to those at `_OFFSETS` of each and whether it must differ.

    Both are (images, candidates, width, offsets).
    """
    key = ops.where(written, certainty, 1.0)
    key = ops.where(known, key, -1e30)
    order = ops.argsort(key, axis=-1)
    priority = ops.cast(ops.argsort(order, axis=-1), "int32")
    # Unknown tokens and those off the canvas never outrank another.
    priority_near = _near(priority)

    def yields(*offsets: int) -> Any:
        outranked = written
        for offset in offsets:
            outranked = outranked & (priority_near(offset) > priority)
        return outranked

    # A token gives way to its neighbours, and to those next to them if the
    # tokens before both, or after both, are the same.
    beside = ops.stack([yields(-1), yields(1)], axis=-1)
    before = ops.stack([yields(-2, -1, -3), yields(2, -1, 1)], axis=-1)
    after = ops.stack([yields(-2, 1, -1), yields(2, 1, 3)], axis=-1)

    def at_offsets(tokens: Any) -> tuple[Any, Any]:
        near = _near(tokens)
        left, right = ops.equal(near(-3), near(-1)), ops.equal(near(1), near(3))
        around = ops.equal(near(-1), near(1))
        in_pair = before & ops.stack([left, around], axis=-1)
        in_pair |= after & ops.stack([around, right], axis=-1)
        others = ops.stack([near(offset) for offset in _OFFSETS], axis=-1)
        return others, ops.concatenate([beside, in_pair], axis=-1)

    return at_offsets


def _near(values: Any) -> Callable[[int], Any]:
    """Gives what stands at an offset from each position, -1 off the canvas."""
    width, reach = ops.shape(values)[-1], 3
    sides = [[0, 0]] * (len(values.shape) - 1) + [[reach, reach]]
    padded = ops.pad(values, sides, constant_values=-1)
    return lambda offset: padded[..., reach + offset : reach + offset + width]
