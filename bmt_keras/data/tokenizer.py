"""Captions to token ids and back, by a SentencePiece model."""

import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece
import tensorflow as tf

from bmt_keras.errors import InputError

PAD, UNKNOWN, CLS, SEP, MASK = "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (PAD, UNKNOWN, CLS, SEP, MASK)
WORD_START = "\u2581"  # SentencePiece's sign for a space


def normalize_caption(text: str) -> str:
    """Normalises a text as ALBERT's tokenisation does before SentencePiece.

    Typographic quotes of two characters become one, accents are stripped,
    letters lower-cased, and any white space between words is one space.
    SentencePiece models of ALBERT do none of it.
    """
    text = text.replace("``", '"').replace("''", '"')
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    return " ".join(text.lower().split())


class CaptionTokenizer:
    """Turns captions into token ids and back.

    Wraps a SentencePiece model with ALBERT's special tokens `<pad>`, `<unk>`,
    `[CLS]`, `[SEP]` and `[MASK]`: ALBERT's own, or one of whole words made by
    `CaptionTokenizer.from_captions`.

    Args:
        proto: The serialised SentencePiece model.

    Raises:
        InputError: The bytes are no SentencePiece model, or a special token is
            not in it.

    Example:
        >>> tokenizer = CaptionTokenizer.from_file("spiece.model")
        >>> tokenizer.encode(["A man rides a horse."])
    """

    def __init__(self, proto: bytes) -> None:
        """Loads the model."""
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(proto)
            size = self._pieces.get_piece_size()
        except (RuntimeError, ValueError) as err:
            raise InputError(
                f"Expected a SentencePiece model, found {len(proto)} bytes "
                "that are none."
            ) from err
        self.proto = proto
        self.vocabulary = [self._pieces.id_to_piece(i) for i in range(size)]
        missing = [t for t in SPECIAL_TOKENS if t not in self.vocabulary[:100]]
        if missing:
            raise InputError(
                f"The SentencePiece model lacks the special tokens {missing}; "
                f"expected all of {list(SPECIAL_TOKENS)}, as ALBERT's "
                "spiece.model has them."
            )
        ids = [self._pieces.piece_to_id(token) for token in SPECIAL_TOKENS]
        self.special_token_ids = ids
        self.pad_id, self.unknown_id, self.cls_id, self.sep_id, self.mask_id = (
            ids
        )

    @classmethod
    def from_file(cls, path: str | Path) -> "CaptionTokenizer":
        """Reads a SentencePiece model, such as ALBERT's `spiece.model`."""
        path = Path(path)
        if not path.is_file():
            raise InputError(
                f"{path}: expected a SentencePiece model (spiece.model), found "
                "no such file."
            )
        try:
            return cls(path.read_bytes())
        except InputError as err:
            raise InputError(f"{path}: {err}") from err

    @classmethod
    def from_captions(cls, captions: Iterable[str]) -> "CaptionTokenizer":
        """Makes a vocabulary of whole words, each word of the captions one.

        For a small closed vocabulary: with pieces of words, parallel decoding
        can join the halves of two different words.

        Raises:
            InputError: The captions hold no word.
        """
        texts = [text for text in map(normalize_caption, captions) if text]
        if not texts:
            raise InputError("Expected captions with words, found none.")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="word",
            use_all_vocab=True,
            normalization_rule_name="identity",
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece=PAD,
            unk_piece=UNKNOWN,
            control_symbols=[CLS, SEP, MASK],
            minloglevel=2,
        )
        return cls(model.getvalue())

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self.vocabulary)

    def save(self, path: str | Path) -> None:
        """Writes the SentencePiece model."""
        Path(path).write_bytes(self.proto)

    def encode(
        self, captions: Sequence[str], *, max_length: int | None = None
    ) -> list[list[int]]:
        """Encodes captions as `[CLS] … [SEP]`.

        Args:
            captions: Texts; `[MASK]` in a text is the mask token.
            max_length: Longest result, `[CLS]` and `[SEP]` included; longer
                captions lose their last tokens.

        Returns:
            A list of token ids for each caption.
        """
        keep = None if max_length is None else max_length - 2
        return [
            [self.cls_id, *self._encode_text(caption)[:keep], self.sep_id]
            for caption in captions
        ]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Joins tokens to a text; special tokens leave nothing behind."""
        special = set(self.special_token_ids)
        pieces = [self.vocabulary[i] for i in token_ids if i not in special]
        return "".join(pieces).replace(WORD_START, " ").strip()

    def decode_tensor(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Does what `decode` does in TensorFlow's own ops, for an export.

        Args:
            token_ids: int32, (batch, length).

        Returns:
            string, (batch,).
        """
        texts = [
            "" if i in self.special_token_ids else piece
            for i, piece in enumerate(self.vocabulary)
        ]
        joined = tf.strings.reduce_join(
            tf.gather(tf.constant(texts), token_ids), axis=-1
        )
        return tf.strings.strip(
            tf.strings.regex_replace(joined, WORD_START, " ")
        )

    def _encode_text(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in re.split(r"(\[MASK\])", text):
            if part == MASK:
                ids.append(self.mask_id)
            elif part.strip():
                ids.extend(self._pieces.encode(normalize_caption(part)))
        return ids
