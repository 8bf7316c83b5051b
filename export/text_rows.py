"""Texts to rows of token ids in the graph, with an error for each bad row."""

import tensorflow as tf

from bmt_keras.data.tokenizer import CaptionTokenizer

from .photo_rows import first_error

# What Python's `str.rstrip` takes away.
_SPACE = (
    r"\t-\r\x{1c}-\x{1f} \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}"
    r"\x{2029}\x{202f}\x{205f}\x{3000}"
)
# A full stop behind words, and not behind another one.
_FINAL_PERIOD = (
    rf"^([{_SPACE}]*(?:[^.{_SPACE}]|[^{_SPACE}]\C*[^.]))\.[{_SPACE}]*$"
)
_GAP = r"\C*(?:\x{2026}|\.{3})\C*"


class TextRows:
    """Encodes texts as the captioner does, and tells what is wrong with them.

    Where the captioner raises for a text, a row gets an error here and stands
    in for the others' sake: `[CLS]`, one token and `[SEP]`.

    Args:
        tokenizer: The captioner's tokenizer.
        max_words: Most tokens of a caption.
    """

    def __init__(self, tokenizer: CaptionTokenizer, *, max_words: int) -> None:
        self._tokenizer = tokenizer
        self._max_words = max_words
        # One trace: the vocabulary is stored once, whoever calls it.
        self._encode = tf.function(
            tokenizer.encode_tensor,
            input_signature=[tf.TensorSpec((None,), tf.string)],
        )

    def captions(
        self, texts: tf.Tensor, *, drop_final_period: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes whole captions, as `Captioner.score` takes them.

        Args:
            texts: string, (batch,).
            drop_final_period: Whether captions lose their full stops first.

        Returns:
            Token ids, int32, (batch, length), `[CLS]` … `[SEP]`, padded; and
            errors, string, (batch,), empty where the text is good.
        """
        if drop_final_period:
            texts = tf.strings.regex_replace(texts, _FINAL_PERIOD, r"\1")
        unknown = self._tokenizer.unknown_id
        rows = self._encode(texts)
        errors = self._check_words(rows, allowed=unknown)
        return self._to_dense(rows, errors, unknown), errors

    def templates(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes captions with masks, as `Captioner.fill_mask` takes them.

        Args:
            texts: string, (batch,), with `[MASK]` for each missing token.

        Returns:
            As `captions`.
        """
        mask = self._tokenizer.mask_id
        rows = self._encode(texts)
        errors = first_error(
            tf.where(
                tf.strings.regex_full_match(texts, _GAP),
                "`text`: expected [MASK] for each missing token, found a gap "
                "(\u2026 or ...).",
                "",
            ),
            self._check_words(rows, allowed=mask),
            tf.where(
                tf.reduce_any(tf.equal(rows, mask), axis=1),
                "",
                "`text`: expected [MASK] where words are missing, found none.",
            ),
        )
        return self._to_dense(rows, errors, mask), errors

    def _check_words(self, rows: tf.RaggedTensor, *, allowed: int) -> tf.Tensor:
        counts = tf.cast(rows.row_lengths(), tf.int32) - 2
        too_long = tf.strings.join(
            [
                f"`text`: expected at most {self._max_words} tokens, the "
                "longest caption, found ",
                tf.strings.as_string(counts),
                ".",
            ]
        )
        refused = [
            tf.equal(rows[:, 1:-1], token)
            for token in self._tokenizer.special_token_ids
            if token != allowed
        ]
        return first_error(
            tf.where(
                tf.equal(counts, 0), "`text`: expected words, found none.", ""
            ),
            tf.where(counts > self._max_words, too_long, ""),
            tf.where(
                tf.reduce_any(tf.reduce_any(tf.stack(refused), axis=0), axis=1),
                "`text`: expected words of the vocabulary, found an unknown "
                "word or a special token.",
                "",
            ),
        )

    def _to_dense(
        self, rows: tf.RaggedTensor, errors: tf.Tensor, filler: int
    ) -> tf.Tensor:
        """Rows as wide as the longest good one: int32, (batch, length)."""
        tokenizer = self._tokenizer
        good = tf.equal(errors, "")
        lengths = tf.where(good, tf.cast(rows.row_lengths(), tf.int32), 3)
        width = tf.reduce_max(lengths)
        dense = rows[:, : self._max_words + 2].to_tensor(tokenizer.pad_id)
        dense = tf.pad(
            dense, [[0, 0], [0, 3]], constant_values=tokenizer.pad_id
        )
        stand_in = tf.pad(
            tf.constant([[tokenizer.cls_id, filler, tokenizer.sep_id]]),
            [[0, 0], [0, width - 3]],
            constant_values=tokenizer.pad_id,
        )
        return tf.where(good[:, None], dense[:, :width], stand_in)
