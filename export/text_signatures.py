"""The signatures that take a photo and a text."""

from collections.abc import Callable

import tensorflow as tf

from bmt_keras import contract
from bmt_keras.caption_graph import CaptionGraph

from .photo_rows import Outputs, blank_bad_rows, first_error, with_rows
from .text_rows import TextRows

NUM_CANDIDATES = 5  # tokens told for each mask


class TextSignatures:
    """Completes and judges captions.

    Args:
        graph: The captioner's graph.
        embed_rows: Maps photos, string, (batch,), to `image_embedding` and
            `error`.
    """

    def __init__(
        self, graph: CaptionGraph, embed_rows: Callable[[tf.Tensor], Outputs]
    ) -> None:
        self._graph = graph
        self._embed_rows = embed_rows
        self._rows = TextRows(graph.tokenizer, max_words=graph.max_words)

    def fill_mask(self, image_bytes: tf.Tensor, text: tf.Tensor) -> Outputs:
        """Completes captions with masks.

        Args:
            image_bytes: string, (batch,).
            text: string, (batch,), with `[MASK]` for each missing token.

        Returns:
            `text`, string, (batch,), completed; `candidates`, string, and
            `candidate_probabilities`, float32, both (batch, max_words,
            NUM_CANDIDATES): for each mask, from the left, the likeliest tokens
            while all other masks are masks; and `error`, string, (batch,).
        """
        return with_rows(self._fill, image_bytes, text, name=contract.TEXT)

    def score_caption(self, image_bytes: tf.Tensor, text: tf.Tensor) -> Outputs:
        """Tells how likely captions are.

        Args:
            image_bytes: string, (batch,).
            text: string, (batch,).

        Returns:
            `score`, float32, (batch,), the mean pseudo-log-likelihood a token;
            `total_score`, float32, (batch,), their sum; and `error`, string,
            (batch,).
        """
        return with_rows(self._score, image_bytes, text, name=contract.TEXT)

    def _fill(self, image_bytes: tf.Tensor, text: tf.Tensor) -> Outputs:
        graph = self._graph
        embedded = self._embed_rows(image_bytes)
        embedding = embedded[contract.IMAGE_EMBEDDING]
        token_ids, wrong = self._rows.templates(text)
        written = graph.fill_masks(embedding, token_ids)
        tokens, probabilities = graph.mask_candidates(
            embedding, token_ids, count=NUM_CANDIDATES
        )
        outputs = {
            contract.TEXT: graph.tokenizer.decode_tensor(written),
            contract.CANDIDATES: tf.reshape(
                graph.tokenizer.decode_tensor(tf.reshape(tokens, (-1, 1))),
                tf.shape(tokens),
            ),
            contract.CANDIDATE_PROBABILITIES: probabilities,
        }
        return blank_bad_rows(
            outputs, first_error(embedded[contract.ERROR], wrong)
        )

    def _score(self, image_bytes: tf.Tensor, text: tf.Tensor) -> Outputs:
        graph = self._graph
        embedded = self._embed_rows(image_bytes)
        token_ids, wrong = self._rows.captions(
            text, drop_final_period=graph.settings.drop_final_period
        )
        log_probs = graph.score_captions(
            embedded[contract.IMAGE_EMBEDDING], token_ids
        )
        total = tf.reduce_sum(log_probs, axis=1)
        is_token = tf.not_equal(token_ids, graph.tokenizer.pad_id)
        count = tf.reduce_sum(tf.cast(is_token, tf.float32), axis=1) - 2.0
        outputs = {
            contract.SCORE: total / count,
            contract.TOTAL_SCORE: total,
        }
        return blank_bad_rows(
            outputs, first_error(embedded[contract.ERROR], wrong)
        )
