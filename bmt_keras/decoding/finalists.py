"""The best captions of each photo, read once more before one is chosen.

Words that were written in the same pass did not know of each other. Each word
of a finished caption, masked in turn, shows whether they go together.
"""

from typing import Any

from keras import ops

from bmt_keras.decoding.options import DecodingOptions
from bmt_keras.decoding.predictor import TokenPredictor
from bmt_keras.decoding.ranking import best_rows, mean_over, take_rows
from bmt_keras.decoding.scoring import score_tokens

_READING_WEIGHT = 0.3  # found on validation photos


def read_finalists(
    predictor: TokenPredictor,
    captions: dict[str, Any],
    ranks: Any,
    counted: Any,
    *,
    options: DecodingOptions,
) -> tuple[dict[str, Any], Any]:
    """Keeps the best captions and ranks them by a second reading as well.

    Args:
        predictor: The model, as for `score_tokens`.
        captions: `token_ids`, int32, (batch, rows, width), and what else there
            is of each caption, (batch, rows, …).
        ranks: float32, (batch, rows), more is better.
        counted: bool, (batch, rows, places), the words that are judged, in the
            first of the width's places, behind which all captions are padding.
        options: `options.finalists` are kept, or `options.num_captions` if that
            is more, or as many as there are.

    Returns:
        The captions and ranks of those kept.
    """
    batch, rows, places = ops.shape(counted)
    kept = ops.minimum(max(options.finalists, options.num_captions), rows)
    best = best_rows(captions["token_ids"], ranks, num_captions=kept)

    def take(values: Any) -> Any:
        taken = take_rows(values, best)
        return ops.reshape(taken, (batch, kept, *values.shape[2:]))

    captions = {name: take(value) for name, value in captions.items()}
    token_ids = ops.reshape(
        captions["token_ids"][..., :places], (batch * kept, places)
    )
    judged = take_rows(ops.cast(counted, "int32"), best)
    read = mean_over(score_tokens(predictor, token_ids), judged)
    read = ops.reshape(read, (batch, kept))
    return captions, take(ranks) + _READING_WEIGHT * read
