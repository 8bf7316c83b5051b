"""A bad image or text fails its own example, not the batch that it is in."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from bmt_keras import contract
from bmt_keras.data.tokenizer import CaptionTokenizer

Outputs = dict[str, tf.Tensor]
_Check = tuple[tf.Tensor, Any]  # whether a text is bad, (batch,); the message

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
_NUM_SPECIAL = 2  # `[CLS]` and `[SEP]` around a caption's tokens


def pad_empty(inputs: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
    """Adds an example where there is none: convolutions fail on no image.

    `inputs` are (batch,) each, by name; InvalidArgumentError if sizes differ.
    """
    first, *others = inputs
    count = tf.size(inputs[first])
    missing = tf.cast(tf.equal(count, 0), tf.int32)
    same = []
    for name in others:
        rule = f"`{name}` must be one for each of `{first}`."
        size = tf.size(inputs[name])
        same.append(tf.debugging.assert_equal(size, count, message=rule))
    # In a SavedModel nothing else would make the assertions run.
    with tf.control_dependencies(same):
        padded = [tf.pad(each, [[0, missing]]) for each in inputs.values()]
    return padded


def blank_errors(outputs: Outputs, error: tf.Tensor) -> Outputs:
    """Gives "" and 0 as outputs of examples that have an error, and `error`.

    Args:
        outputs: (batch, ...) each.
        error: string, (batch,), empty where the example is good.
    """
    good = tf.equal(error, "")
    blanked = {}
    for name, value in outputs.items():
        shape = (-1, *[1] * (value.shape.rank - 1))
        empty = tf.zeros_like(value)  # "" for texts
        blanked[name] = tf.where(tf.reshape(good, shape), value, empty)
    return {**blanked, contract.ERROR: error}


class TextEncoder:
    """Encodes texts as the captioner does, with an error for each bad one.

    Where the captioner raises for a text, its example gets an error here, and
    `[CLS]`, a token and `[SEP]` stand in its place for the others' sake.
    """

    def __init__(
        self, tokenizer: CaptionTokenizer, *, max_caption_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self._max_caption_tokens = max_caption_tokens
        # One trace: the vocabulary is stored once, whoever calls it.
        self._encode = tf.function(
            tokenizer.encode_tensor,
            input_signature=[tf.TensorSpec((None,), tf.string)],
        )

    def encode_captions(
        self, texts: tf.Tensor, *, drop_final_period: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes whole captions, string, (batch,), as `Captioner.score`.

        Returns:
            Token ids, int32, (batch, length), `[CLS]` … `[SEP]`, padded; and
            errors, string, (batch,), empty where the text is good.
        """
        if drop_final_period:
            texts = tf.strings.regex_replace(texts, _FINAL_PERIOD, r"\1")
        unknown = self._tokenizer.unknown_token_id
        token_ids = self._encode(texts)
        errors = _first_error(self._check_tokens(token_ids, unknown))
        return self._to_dense(token_ids, errors, unknown), errors

    def encode_templates(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes captions with `[MASK]`s, as `encode_captions`."""
        mask = self._tokenizer.mask_token_id
        token_ids = self._encode(texts)
        has_gap = tf.strings.regex_full_match(texts, _GAP)
        has_mask = tf.reduce_any(tf.equal(token_ids, mask), axis=1)
        gap = (
            "`text`: expected [MASK] for each missing token, found a gap "
            "(\u2026 or ...)."
        )
        none = "`text`: expected [MASK] where words are missing, found none."
        checks = self._check_tokens(token_ids, mask)
        errors = _first_error([(has_gap, gap), *checks, (~has_mask, none)])
        return self._to_dense(token_ids, errors, mask), errors

    def _check_tokens(
        self, token_ids: tf.RaggedTensor, allowed: int
    ) -> list[_Check]:
        """Finds texts that are empty, too long, or have special tokens."""
        most = self._max_caption_tokens
        counts = tf.cast(token_ids.row_lengths(), tf.int32) - _NUM_SPECIAL
        too_long = (
            f"`text`: expected at most {most} tokens, the longest caption, "
            "found " + tf.strings.as_string(counts) + "."
        )
        refused = [
            tf.equal(token_ids[:, 1:-1], token)
            for token in self._tokenizer.special_token_ids
            if token != allowed
        ]
        is_refused = tf.reduce_any(tf.stack(refused), axis=0)
        unknown = (
            "`text`: expected words of the vocabulary, found an unknown word "
            "or a special token."
        )
        return [
            (tf.equal(counts, 0), "`text`: expected words, found none."),
            (counts > most, too_long),
            (tf.reduce_any(is_refused, axis=1), unknown),
        ]

    def _to_dense(
        self, token_ids: tf.RaggedTensor, errors: tf.Tensor, filler: int
    ) -> tf.Tensor:
        """Pads to the longest good text: int32, (batch, length)."""
        tokenizer = self._tokenizer
        stand_in = [tokenizer.cls_token_id, filler, tokenizer.sep_token_id]
        rows = tf.concat([token_ids, [stand_in]], axis=0)
        count = tf.size(errors)
        # A bad text, which may be the longest, gives way to the last row.
        chosen = tf.where(tf.equal(errors, ""), tf.range(count), count)
        return tf.gather(rows, chosen).to_tensor(tokenizer.pad_token_id)


def _first_error(checks: Sequence[_Check]) -> tf.Tensor:
    """The message of each example's first check that is true; else ""."""
    error = tf.constant("")
    for is_bad, message in reversed(checks):
        error = tf.where(is_bad, message, error)
    return error  # (batch,)
