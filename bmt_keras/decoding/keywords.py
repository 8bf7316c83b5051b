"""Words that a caption must have, set where the model likes them best."""

from typing import Any

from keras import ops

from bmt_keras.decoding.canvas import NEVER, Canvas, words_of
from bmt_keras.decoding.predictor import TokenPredictor, gather_places


def place_keywords(
    predictor: TokenPredictor, canvas: Canvas, keywords: Any
) -> Canvas:
    """Sets keywords into blank canvases.

    One pass over the masks tells how likely each keyword is from each place
    on: the sum of its tokens' log-probabilities. Each takes its best free
    place, one after the other. Where the earlier ones leave no room for a
    later one, all of them stand at the caption's start.

    Args:
        predictor: The model.
        canvas: Blank ones.
        keywords: int32, (rows, keywords, tokens), padding after the tokens;
            no row's keywords have more tokens than its canvas words.

    Returns:
        The canvas with the keywords and their scores.
    """
    special = predictor.special
    is_word = words_of(canvas.token_ids, special)
    is_token = ops.not_equal(keywords, special.pad_id)
    log_probs = _keyword_log_probs(predictor, canvas, keywords)
    # Words stand at places from 1 on: (rows, words).
    occupied = ops.logical_not(is_word[:, 1:-1])
    starts = _choose_starts(log_probs, is_token, occupied)
    # How far a word is from each keyword's first one: (rows, words, keywords).
    words = ops.arange(ops.shape(occupied)[1], dtype="int32")
    offset = words[None, :, None] - starts[:, None, :]
    sizes = ops.sum(ops.cast(is_token, "int32"), axis=-1)[:, None, :]
    inside = ops.logical_and(offset >= 0, offset < sizes)
    index = ops.clip(offset, 0, ops.shape(keywords)[2] - 1)
    tokens = ops.take_along_axis(
        ops.transpose(keywords, (0, 2, 1)), index, axis=1
    )
    scores = ops.take_along_axis(log_probs, index[..., None], axis=-1)[..., 0]

    def write(values: Any, old: Any) -> Any:
        new = ops.sum(ops.where(inside, values, ops.zeros_like(values)), axis=2)
        taken = ops.pad(ops.any(inside, axis=2), [[0, 0], [1, 1]])
        return ops.where(taken, ops.pad(new, [[0, 0], [1, 1]]), old)

    return Canvas(write(tokens, canvas.token_ids), write(scores, canvas.scores))


def _keyword_log_probs(
    predictor: TokenPredictor, canvas: Canvas, keywords: Any
) -> Any:
    """Of each keyword's tokens: float32, (rows, words, keywords, tokens)."""
    places = gather_places(words_of(canvas.token_ids, predictor.special))
    rows, number, size = (ops.shape(keywords)[i] for i in range(3))
    words = ops.shape(places)[1]
    asked = ops.broadcast_to(
        ops.reshape(keywords, (rows, 1, number * size)),
        (rows, words, number * size),
    )
    found = predictor.log_probs_at(canvas.token_ids, places, asked)
    return ops.reshape(found, (rows, words, number, size))


def _choose_starts(log_probs: Any, is_token: Any, occupied: Any) -> Any:
    """The first word of each keyword: int32, (rows, keywords)."""
    rows, number, size = (ops.shape(is_token)[i] for i in range(3))
    words = ops.arange(ops.shape(occupied)[1], dtype="int32")
    # Of each start the words that a keyword would take: (1, words, tokens).
    span = words[:, None] + ops.arange(size, dtype="int32")[None, :]
    span = ops.broadcast_to(span[None], (rows, *(ops.shape(span))))

    def window(values: Any, beyond: Any) -> Any:
        padded = ops.pad(
            values, [[0, 0], [0, size], [0, 0]], constant_values=beyond
        )
        return ops.take_along_axis(padded, span, axis=1)

    def place(k: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        starts, taken, fits = state
        wanted = ops.take(is_token, k, axis=1)[:, None, :]
        likely = window(ops.take(log_probs, k, axis=2), 0.0)
        total = ops.sum(ops.where(wanted, likely, 0.0), axis=-1)
        is_taken = ops.repeat(ops.cast(taken, "int32")[..., None], size, axis=2)
        blocked = ops.any(
            ops.logical_and(wanted, ops.equal(window(is_taken, 1), 1)), axis=-1
        )
        start = ops.argmax(ops.where(blocked, NEVER, total), axis=-1)
        start = ops.cast(start, "int32")[:, None]
        end = start + ops.sum(ops.cast(wanted, "int32"), axis=-1)
        own = ops.logical_and(words[None] >= start, words[None] < end)
        room = ops.logical_not(ops.all(blocked, axis=-1))
        column = ops.equal(ops.arange(number, dtype="int32")[None], k)
        return (
            ops.where(column, start, starts),
            ops.logical_or(taken, own),
            ops.logical_and(fits, room),
        )

    starts = ops.zeros((rows, number), "int32")
    fits = ops.ones((rows,), "bool")
    starts, _, fits = ops.fori_loop(0, number, place, (starts, occupied, fits))
    sizes = ops.sum(ops.cast(is_token, "int32"), axis=-1)
    packed = ops.cumsum(sizes, axis=-1) - sizes
    return ops.where(fits[:, None], starts, packed)
