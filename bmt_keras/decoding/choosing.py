"""Which of an image's candidates are kept.

By their mean log-probabilities, or by minimum Bayes risk; and by how much they
are expected to share with what people would say. The best may be scored once
more before one is chosen.
"""

from typing import Any, NamedTuple

from keras import ops

from bmt_keras.decoding.canvas import NEVER, Canvas, in_frame
from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.predictor import (
    ExpectedTokens,
    TokenPredictor,
    score_tokens,
)

# All found on validation images.
_MBR_LENGTH_DEVIATION = 4.0  # tokens of difference, at which 0.6 is alike
_MBR_SCORE_WEIGHT = 0.2  # of mean log-probabilities, compared with likeness
_RERANK_WEIGHT = 0.3  # of the second score, compared with the first rank


def choose_captions(
    predictor: TokenPredictor,
    canvas: Canvas,
    is_judged: Any,
    *,
    options: DecodingOptions,
    width: int,
) -> dict[str, Any]:
    """Keeps the best captions of each image, copies of better ones last.

    `is_judged`, bool, as `canvas.token_ids`, are the tokens that count in
    scores. `width` is that of the answer, the dictionary of `mask_predict`.
    """
    captions = {
        "token_ids": _pad_width(canvas.token_ids, width),
        "token_scores": _pad_width(canvas.scores, width),
        "score": _mean_over(canvas.scores, is_judged),
    }
    captions["rank"] = _rank(predictor, captions, options)
    if options.rerank_top > 1:
        captions = rerank(predictor, captions, is_judged, options)
    kept = _keep_best(captions, options.num_captions)
    del kept["rank"]
    return kept


def _pad_width(values: Any, width: int) -> Any:
    images, candidates, used = ops.shape(values)
    padded = ops.pad(values, [[0, 0], [0, 0], [0, width - used]])
    return ops.reshape(padded, (images, candidates, width))


def _rank(
    predictor: TokenPredictor,
    captions: dict[str, Any],
    options: DecodingOptions,
) -> Any:
    """How good an image's captions are: float32, (images, candidates)."""
    token_ids, scores = captions["token_ids"], captions["score"]
    is_token = in_frame(token_ids, predictor.tokenizer)
    ranks, expected = scores, predictor.expected
    if options.uses_mbr:
        rarity = None if expected is None else expected.rarity
        alike = expected_likeness(token_ids, is_token, scores, rarity)
        ranks = alike + _MBR_SCORE_WEIGHT * scores
    if expected is not None and options.overlap_weight:
        overlap = expected_overlap(token_ids, is_token, expected)
        ranks += options.overlap_weight * overlap
    return ranks


def rerank(
    predictor: TokenPredictor,
    captions: dict[str, Any],
    is_judged: Any,
    options: DecodingOptions,
) -> dict[str, Any]:
    """Keeps the best `options.rerank_top`, ranked by a second score, too.

    Tokens that were written in the same pass did not know of each other. Each
    token of a finished caption, masked in turn, shows whether they go together.
    """
    # Behind the canvas, which is as wide as `is_judged`, all is padding.
    _, candidates, width = ops.shape(is_judged)
    kept = max(options.rerank_top, options.num_captions)
    judged = {"is_judged": ops.cast(is_judged, "int32")}
    best = _keep_best(captions | judged, ops.minimum(kept, candidates))
    scores = score_tokens(predictor, best["token_ids"][..., :width])
    again = _mean_over(scores, best.pop("is_judged"))
    return best | {"rank": best["rank"] + _RERANK_WEIGHT * again}


def _keep_best(captions: dict[str, Any], number: Any) -> dict[str, Any]:
    """The number of captions of each image with the best ranks, best first."""
    ranks = captions["rank"]
    if not (isinstance(number, int) and number == 1):
        is_copy = _is_copy(captions["token_ids"], ranks)
        ranks = ops.where(is_copy, ranks + NEVER, ranks)
    _, best = ops.top_k(ranks, number)
    best = ops.cast(best, "int32")

    def take(values: Any) -> Any:
        index = best if len(values.shape) == 2 else best[..., None]
        return ops.take_along_axis(values, index, axis=1)

    return {name: take(values) for name, values in captions.items()}


def _is_copy(token_ids: Any, ranks: Any) -> Any:
    """True at captions that a better or an earlier candidate has, too."""
    same = ops.equal(token_ids[:, :, None, :], token_ids[:, None, :, :])
    own, other = ranks[:, :, None], ranks[:, None, :]
    number = ops.arange(ops.shape(token_ids)[1])
    is_earlier = number[None, :] < number[:, None]
    goes_before = (other > own) | (ops.equal(other, own) & is_earlier)
    return ops.any(ops.all(same, axis=-1) & goes_before, axis=-1)


def _mean_over(values: Any, counted: Any) -> Any:
    """The mean over counted positions, 0 where there are none."""
    weight = ops.cast(counted, "float32")
    total = ops.sum(values * weight, axis=-1)
    return total / ops.maximum(ops.sum(weight, axis=-1), 1.0)


# === Expected overlap with people's captions ===


def expected_overlap(
    token_ids: Any, is_token: Any, expected: ExpectedTokens
) -> Any:
    """How many tokens each caption is expected to share with people's.

    The F1 of tokens by rarity, in [0, 1], float32, (images, candidates). Of
    people's captions there is what is expected of them: each of a caption's
    tokens is shared as often as they hold it, and they weigh as much as all
    that they are expected to hold. A mean log-probability is best for the
    tokens that are surest in any image, this for those that tell it apart.
    """
    tokens = _unigrams(token_ids, is_token, expected.rarity)
    images, candidates, width = ops.shape(token_ids)
    flat = ops.reshape(token_ids, (images, candidates * width))
    held = ops.take_along_axis(expected.probabilities, flat, axis=1)
    held = ops.reshape(held, (images, candidates, width))
    shared = ops.where(tokens.is_first(), tokens.weights * held, 0.0)
    people = ops.sum(expected.probabilities * expected.rarity, axis=-1)
    mass = ops.maximum(tokens.mass() + people[:, None], 1e-6)
    return 2.0 * ops.sum(shared, axis=-1) / mass


# === Minimum Bayes risk ===


def expected_likeness(
    token_ids: Any, is_token: Any, scores: Any, rarity: Any = None
) -> Any:
    """How much each caption is like all candidates of its image.

    A caption that is likely as a whole may be unlike all others that the model
    would write. Minimum Bayes risk (Kumar and Byrne 2004; Eikema and Aziz 2022,
    arXiv 2108.04718) keeps the one that is expected to be most like a caption
    of the image, where captions written by the model, weighted by how likely
    they are, stand for those of people. Two captions are alike by the F1 of
    their different tokens and pairs of neighbouring tokens, less where their
    lengths differ: float32, (images, candidates), in [0, 2].
    """
    unigrams = _unigrams(token_ids, is_token, rarity)
    alike = _f1(unigrams) + _f1(_bigrams(unigrams))
    lengths = ops.sum(ops.cast(is_token, "float32"), axis=-1)
    difference = lengths[:, :, None] - lengths[:, None, :]
    alike *= ops.exp(-(difference**2) / (2 * _MBR_LENGTH_DEVIATION**2))
    weights = ops.softmax(scores)
    return ops.sum(alike * weights[:, None, :], axis=-1)


class _Ngrams(NamedTuple):
    """The n-grams of captions, of one order, and how much each counts."""

    ids: Any  # int64, (images, candidates, positions), -1 for none
    weights: Any  # float32, of the same shape, 0 for none

    def is_first(self) -> Any:
        """Whether each stands for the first time in its caption: bool."""
        # A known width lets the comparison be folded into a constant.
        width = self.ids.shape[-1] or ops.shape(self.ids)[-1]
        positions = ops.arange(width)
        is_earlier = positions[None, :] < positions[:, None]
        same = ops.equal(self.ids[..., :, None], self.ids[..., None, :])
        return ~ops.any(same & is_earlier, axis=-1)

    def mass(self) -> Any:
        """The weight of each caption: float32, (images, candidates)."""
        # What it says again weighs double: that is shared once at most, and
        # stands where something else could.
        times = ops.where(self.is_first(), 1.0, 2.0)
        return ops.sum(self.weights * times, axis=-1)


def _unigrams(token_ids: Any, is_token: Any, rarity: Any) -> _Ngrams:
    ids = ops.where(is_token, ops.cast(token_ids, "int64"), -1)
    weights = ops.cast(is_token, "float32")
    if rarity is not None:
        weights = weights * ops.take(rarity, token_ids, axis=0)
    return _Ngrams(ids, weights)


def _bigrams(unigrams: _Ngrams) -> _Ngrams:
    """Pairs of neighbouring tokens, of their tokens' mean weight."""
    first, second = unigrams.ids[..., :-1], unigrams.ids[..., 1:]
    is_pair = (first >= 0) & (second >= 0)
    # No token id has more than 31 bits.
    ids = ops.where(is_pair, ops.left_shift(first, 31) + second, -1)
    weights = (unigrams.weights[..., :-1] + unigrams.weights[..., 1:]) / 2.0
    return _Ngrams(ids, ops.where(is_pair, weights, 0.0))


def _f1(ngrams: _Ngrams) -> Any:
    """F1 of different n-grams: float32, (images, candidates, candidates)."""
    images, candidates, size = ops.shape(ngrams.ids)
    number = candidates * size

    # An image's n-grams are sorted and numbered, so that a table tells which
    # candidate has which: comparing all takes six times as long for 56 of them.
    ids, order = ops.top_k(ops.reshape(ngrams.ids, (images, number)), number)
    is_new = ops.cast(ops.not_equal(ids[:, 1:], ids[:, :-1]), "int32")
    kind = ops.cumsum(ops.pad(is_new, [[0, 0], [1, 0]]), axis=-1)
    kinds = ops.max(kind, initial=0) + 1
    first = ops.arange(images, dtype="int32")[:, None] * number
    index = ops.reshape(first + order, (-1,))
    cell = index // size * kinds + ops.reshape(kind, (-1,))

    def table(values: Any) -> Any:  # (images, candidates, kinds)
        values = ops.take(ops.reshape(values, (-1,)), index)
        sums = ops.segment_sum(values, cell, images * candidates * kinds)
        return ops.reshape(sums, (images, candidates, kinds))

    has = ops.cast(ngrams.is_first(), "float32")
    shared = table(has * ngrams.weights) @ ops.swapaxes(table(has), 1, 2)
    mass = ngrams.mass()
    total = mass[:, :, None] + mass[:, None, :]
    return 2.0 * shared / ops.maximum(total, 1e-6)
