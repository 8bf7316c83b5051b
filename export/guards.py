"""A bad image or text fails its own example, not the batch that it is in."""

from collections.abc import Callable

import tensorflow as tf

from bmt_keras import contract
from bmt_keras.data.tokenizer import CaptionTokenizer

Outputs = dict[str, tf.Tensor]

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


def run_nonempty(
    run: Callable[..., Outputs],
    image_bytes: tf.Tensor,
    values: tf.Tensor | None = None,
    *,
    name: str = "",
) -> Outputs:
    """Runs a graph on one example at least: convolutions fail on none.

    Args:
        run: Takes images, and values if there are any.
        image_bytes: string, (batch,).
        values: (batch,), one per image; or None.
        name: What a client calls the values.

    Raises:
        tf.errors.InvalidArgumentError: There are more or fewer values than
            images.
    """
    count = tf.size(image_bytes)
    missing = tf.cast(tf.equal(count, 0), tf.int32)
    inputs = [tf.concat([image_bytes, tf.fill([missing], "")], axis=0)]
    if values is not None:
        same = tf.debugging.assert_equal(
            tf.size(values),
            count,
            message=f"`{name}` must be one for each of "
            f"`{contract.IMAGE_BYTES}`.",
        )
        with tf.control_dependencies([same]):
            inputs.append(tf.pad(values, [[0, missing]]))
    outputs = run(*inputs)
    return {key: value[:count] for key, value in outputs.items()}


def blank_errors(outputs: Outputs, *errors: tf.Tensor) -> Outputs:
    """Empties the outputs of examples that have an error.

    Args:
        outputs: (batch, ...) each.
        *errors: string, (batch,), empty where the example is good; an
            example's first one counts.

    Returns:
        The outputs, "" and 0 in the bad examples, and `error`.
    """
    error = first_error(*errors)
    good = tf.equal(error, "")
    blanked = {
        name: tf.where(
            tf.reshape(good, (-1, *[1] * (value.shape.rank - 1))),
            value,
            tf.zeros_like(value),
        )
        for name, value in outputs.items()
    }
    return {**blanked, contract.ERROR: error}


def first_error(*errors: tf.Tensor) -> tf.Tensor:
    """The first message of each example: string, (batch,), "" without one."""
    first = errors[-1]
    for error in reversed(errors[:-1]):
        first = tf.where(tf.equal(error, ""), first, error)
    return first


class TextEncoder:
    """Encodes texts as the captioner does, with an error for each bad one.

    Where the captioner raises for a text, its example gets an error here, and
    the others need something to stand in its place: `[CLS]`, a token, `[SEP]`.

    Args:
        tokenizer: The captioner's tokenizer.
        max_caption_tokens: Most tokens of a caption, without special ones.
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
        unknown = self._tokenizer.unknown_token_id
        token_ids = self._encode(texts)
        errors = self._check_tokens(token_ids, allowed=unknown)
        return self._to_dense(token_ids, errors, unknown), errors

    def encode_templates(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes captions with masks, as `Captioner.fill_mask` takes them.

        Args:
            texts: string, (batch,), with `[MASK]` for each missing token.

        Returns:
            As `encode_captions`.
        """
        mask = self._tokenizer.mask_token_id
        token_ids = self._encode(texts)
        errors = first_error(
            tf.where(
                tf.strings.regex_full_match(texts, _GAP),
                "`text`: expected [MASK] for each missing token, found a gap "
                "(\u2026 or ...).",
                "",
            ),
            self._check_tokens(token_ids, allowed=mask),
            tf.where(
                tf.reduce_any(tf.equal(token_ids, mask), axis=1),
                "",
                "`text`: expected [MASK] where words are missing, found none.",
            ),
        )
        return self._to_dense(token_ids, errors, mask), errors

    def _check_tokens(
        self, token_ids: tf.RaggedTensor, *, allowed: int
    ) -> tf.Tensor:
        """Errors of texts that are empty, too long, or have special tokens."""
        most = self._max_caption_tokens
        counts = tf.cast(token_ids.row_lengths(), tf.int32) - _NUM_SPECIAL
        too_long = tf.strings.join(
            [
                f"`text`: expected at most {most} tokens, the longest caption, "
                "found ",
                tf.strings.as_string(counts),
                ".",
            ]
        )
        refused = [
            tf.equal(token_ids[:, 1:-1], token)
            for token in self._tokenizer.special_token_ids
            if token != allowed
        ]
        return first_error(
            tf.where(
                tf.equal(counts, 0), "`text`: expected words, found none.", ""
            ),
            tf.where(counts > most, too_long, ""),
            tf.where(
                tf.reduce_any(tf.reduce_any(tf.stack(refused), axis=0), axis=1),
                "`text`: expected words of the vocabulary, found an unknown "
                "word or a special token.",
                "",
            ),
        )

    def _to_dense(
        self, token_ids: tf.RaggedTensor, errors: tf.Tensor, filler: int
    ) -> tf.Tensor:
        """Pads to the longest good text: int32, (batch, length)."""
        tokenizer = self._tokenizer
        stand_in = [tokenizer.cls_token_id, filler, tokenizer.sep_token_id]
        good = tf.equal(errors, "")
        lengths = tf.cast(token_ids.row_lengths(), tf.int32)
        width = tf.reduce_max(tf.where(good, lengths, len(stand_in)))
        dense = token_ids[:, : self._max_caption_tokens + _NUM_SPECIAL]
        dense = dense.to_tensor(tokenizer.pad_token_id)

        def pad(tensor: tf.Tensor, more: tf.Tensor | int) -> tf.Tensor:
            paddings = [[0, 0], [0, more]]
            return tf.pad(
                tensor, paddings, constant_values=tokenizer.pad_token_id
            )

        # (batch, width), also where all good texts are shorter than a bad one
        dense = pad(dense, len(stand_in))[:, :width]
        stand_in = pad(tf.constant([stand_in]), width - len(stand_in))
        return tf.where(good[:, None], dense, stand_in)
