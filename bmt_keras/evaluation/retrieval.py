"""Recall of texts found by images, and of images found by texts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def retrieval_recall(
    scores: ArrayLike,
    image_of_text: ArrayLike,
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Measures how often the k best scores hold what belongs together.

    Recall@k of images is the share of images with a text of their own among
    the k texts of the highest score; that of texts the share of texts with
    their image among the k images. Of equal scores the wrong ones come first,
    so that a score which tells nothing earns nothing.

    Args:
        scores: float, (images, texts): how well each text fits each image.
        image_of_text: int, (texts,): the row of each text's image. Images may
            have several texts, and must have one.
        ks: Numbers of candidates looked at.

    Returns:
        `text_recall_at_{k}` (texts found by images) and `image_recall_at_{k}`
        (images found by texts) of every k, in [0, 1].

    Raises:
        ValueError: If the shapes do not fit, a score is not a number, an image
            has no text or a k is below 1.

    Reference:
        Hodosh et al. 2013, "Framing Image Description as a Ranking Task".
    """
    matrix = np.asarray(scores, np.float64)
    rows = np.asarray(image_of_text)
    _check_matrix(matrix, rows, ks)
    own = rows == np.arange(len(matrix))[:, np.newaxis]  # (images, texts)
    ranks = {
        "text": _best_ranks(matrix, own),
        "image": _best_ranks(matrix.T, own.T),
    }
    return {
        f"{name}_recall_at_{k}": float(np.mean(found <= k))
        for name, found in ranks.items()
        for k in ks
    }


def _best_ranks(
    scores: NDArray[np.float64], own: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The rank, from 1, of each row's best own column: (rows,)."""
    best = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
    ahead = (scores >= best) & ~own
    return 1 + ahead.sum(axis=1)


def _check_matrix(
    scores: NDArray[np.float64], rows: NDArray[np.int64], ks: Sequence[int]
) -> None:
    if scores.ndim != 2 or rows.shape != scores.shape[1:]:
        raise ValueError(
            "`scores` must have the shape (images, texts) and `image_of_text` "
            f"(texts,). Received: {scores.shape} and {rows.shape}"
        )
    if np.isnan(scores).any():
        raise ValueError("`scores` must be numbers. Received: NaN")
    named = set(rows.tolist())
    if not scores.size or named != set(range(len(scores))):
        raise ValueError(
            "`image_of_text` must name every row of `scores` and no other. "
            f"Received: {len(named)} rows named, {len(scores)} rows"
        )
    if any(k < 1 for k in ks):
        raise ValueError(f"`ks` must be at least 1. Received: {tuple(ks)}")
