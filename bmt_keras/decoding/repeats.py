"""The guard against "a a man" and "a man a man"."""

from typing import Any

from keras import ops

from bmt_keras.decoding.canvas import places_of


def avoid_repeats(
    token_ids: Any,
    choices: Any,
    certainty: Any,
    *,
    written: Any,
    known: Any,
    no_repeated_bigram: bool = False,
) -> Any:
    """Chooses tokens so that none repeats its neighbour.

    Places written in one pass do not see each other. The more certain place
    keeps its favourite; the less certain one takes its next choice that
    repeats neither a neighbouring token nor two tokens in a row. Tokens that
    were written before or are given are more certain than all others.

    Args:
        token_ids: int32, (rows, width), the tokens so far.
        choices: int32, (rows, width, choices), tokens for each place, the
            favourite first. Where all of them repeat, the bigram gives way
            first.
        certainty: float32, (rows, width), at most 0.
        written: bool, (rows, width), where a token is to be chosen.
        known: bool, (rows, width), where a token stands or is to be chosen.
        no_repeated_bigram: Two tokens may not come again anywhere in the
            caption, instead of not right after themselves.

    Returns:
        int32, (rows, width): which choice is taken; 0 where none is written.
    """
    adjacent, bigram_left, bigram_right = _constraints(
        certainty, written, known, no_repeated_bigram
    )
    count = ops.shape(choices)[-1]
    ranks = ops.arange(count, dtype="int32")

    def tokens_of(taken: Any) -> Any:
        index = ops.expand_dims(taken, -1)
        chosen = ops.take_along_axis(choices, index, axis=-1)[..., 0]
        return ops.where(written, chosen, token_ids)

    def repeated_bigrams(tokens: Any) -> Any:
        left = _equal_pairs(_shift(tokens, 1, -1))
        right = _equal_pairs(_shift(tokens, -1, -1))
        return ops.logical_or(
            ops.logical_and(bigram_left, left),
            ops.logical_and(bigram_right, right),
        )

    def choose(taken: Any, _: Any) -> tuple[Any, Any]:
        tokens = tokens_of(taken)
        same = ops.equal(choices[:, :, None, :], tokens[:, None, :, None])
        bigram = repeated_bigrams(tokens)
        cost = (
            ranks
            + count * _count_clashes(bigram, same)
            + 2 * count * _count_clashes(adjacent, same)
        )
        better = ops.cast(ops.argmin(cost, axis=-1), "int32")
        better = ops.where(written, better, 0)
        return better, ops.any(ops.not_equal(better, taken))

    favourites = ops.zeros_like(token_ids)
    tokens = tokens_of(favourites)
    must_differ = ops.logical_or(adjacent, repeated_bigrams(tokens))
    repeats = ops.any(ops.logical_and(must_differ, _equal_pairs(tokens)))
    # Each choice depends on more certain places alone, so that the loop ends
    # after as many rounds as the longest chain of them; mostly without one.
    taken, _ = ops.while_loop(
        lambda _, changed: changed, choose, (favourites, repeats)
    )
    return taken


def _constraints(
    certainty: Any, written: Any, known: Any, no_repeated_bigram: bool
) -> tuple[Any, Any, Any]:
    """Which place must differ from which other one: bool, (rows, width, width).

    Always; if the places to the left of both hold the same token; and if those
    to the right do. The least certain of the places has to give way.
    """
    key = ops.where(written, certainty, 1.0)
    key = ops.where(known, key, -1e30)
    priority = ops.argsort(ops.argsort(key, axis=-1), axis=-1)
    priority = ops.cast(priority, "int32")
    own = ops.expand_dims(priority, -1)
    places = places_of(ops.shape(written)[1])
    distance = ops.abs(places - ops.transpose(places))
    far = distance >= 2 if no_repeated_bigram else ops.equal(distance, 2)
    yields = ops.logical_and(
        ops.expand_dims(written, -1), ops.expand_dims(priority, 1) > own
    )

    def beside(offset: int) -> Any:
        # Unknown places and those off the canvas never outrank a place.
        side = _shift(priority, offset, -1)
        both = ops.minimum(ops.expand_dims(side, -1), ops.expand_dims(side, 1))
        return ops.logical_and(ops.logical_and(yields, far), both > own)

    adjacent = ops.logical_and(yields, ops.equal(distance, 1))
    return adjacent, beside(1), beside(-1)


def _shift(values: Any, offset: int, fill: int) -> Any:
    """What stands `offset` places to the left: (rows, width)."""
    edge = ops.full_like(values[:, :1], fill)
    if offset > 0:
        return ops.concatenate([edge, values[:, :-1]], axis=1)
    return ops.concatenate([values[:, 1:], edge], axis=1)


def _equal_pairs(values: Any) -> Any:
    return ops.equal(ops.expand_dims(values, -1), ops.expand_dims(values, 1))


def _count_clashes(must_differ: Any, same: Any) -> Any:
    """1 where a choice repeats what it must not: int32, (rows, width, n)."""
    clash = ops.logical_and(ops.expand_dims(must_differ, -1), same)
    return ops.cast(ops.any(clash, axis=2), "int32")
