"""Texts to token ids in TensorFlow ops, as transformers gives them."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text
from google.protobuf.message import DecodeError, Message
from sentencepiece import sentencepiece_model_pb2

from bmt_keras.errors import InputError

# Its classes are made at run time: a type checker sees none.
protos: Any = sentencepiece_model_pb2
Piece = protos.ModelProto.SentencePiece
_ADDED_TYPES = (Piece.CONTROL, Piece.UNKNOWN, Piece.USER_DEFINED)

# Where in TensorFlow an error came from.
_TRACE = re.compile(r"\{\{.*?\}\} | \[Op:.*")
_CUT = "\x01"
# Stands for what no vocabulary has: a character for private use.
_UNKNOWN_CHARACTER = "\ue000"
# What Unicode calls white space and NFKD leaves; \v is the model's to delete.
_SPACES = r"[ \t\n\f\r\x{85}\x{1680}\x{2028}\x{2029}]+"
_HANGUL_PARTS = r"([\x{1100}-\x{11ff}])"
_SCORE_STEP = 2.0**-15
_LETTER_SCORE = 3.0
# A table without an entry: without a table SentencePiece writes to stderr.
_EMPTY_CHARSMAP = (1024).to_bytes(4, "little") + bytes(1025)


def parse_model(proto: bytes) -> Any:
    """Parses a serialised SentencePiece model of one piece at least.

    Raises:
        InputError: The bytes are no SentencePiece model.
    """
    try:
        model = protos.ModelProto.FromString(proto)
        # To protocol buffers no bytes at all are a model too.
        if not model.pieces:
            raise DecodeError("no pieces")
    except DecodeError as error:
        raise InputError(
            f"Expected a SentencePiece model, found {len(proto)} bytes that "
            "are none."
        ) from error
    return model


def as_tensor(texts: Iterable[str]) -> tf.Tensor:
    """Makes a string tensor of Python's texts: (batch,)."""
    # A lone surrogate is no UTF-8; the graph takes it for an unknown one.
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return tf.constant(encoded, tf.string, shape=(len(encoded),))


def normalize(texts: tf.Tensor) -> tf.Tensor:
    """Normalises texts as ALBERT does before SentencePiece.

    Quotes of two characters become one, compatibility characters what they
    stand for, accents and other marks go, letters are lower-cased one by one,
    and any white space is one space. Invalid UTF-8 is U+FFFD.
    """
    texts = tf.strings.regex_replace(_valid(texts), "``|''", '"')
    texts = tf_text.normalize_utf8(texts, "NFKD")
    texts = tf.strings.regex_replace(texts, r"\p{M}+", "")
    # Lower-casing by the rules of a position in the word, or of the machine's
    # language, would give other letters: a final sigma, Turkish's dotless i.
    texts = tf.strings.regex_replace(texts, r"\x{3a3}", "\u03c3")
    texts = tf.strings.regex_replace(texts, "I", "i")
    texts = tf.strings.lower(texts, encoding="utf-8")
    return tf.strings.strip(tf.strings.regex_replace(texts, _SPACES, " "))


def match_any(tokens: Iterable[str]) -> str:
    """Gives the regular expression of any of the tokens, longest first."""
    ordered = sorted(tokens, key=len, reverse=True)
    return "|".join(re.escape(token) for token in ordered)


class TokenizerGraph:
    """A SentencePiece model with all that transformers does around it.

    First the text is cut at the added tokens: the special ones and the
    model's control and user-defined pieces, each written just so. What lies
    between is normalised and split into words, and each word into pieces;
    neighbouring unknown characters are one unknown token.

    The ids are those of transformers' `AlbertTokenizer`, but for some 400
    code points, nearly all marks of rare scripts, that Unicode took in from
    version 10 on and its tables lack, and for words of hundreds of letters or
    dozens of unknown ones, whose splits can score alike to the last digits.

    Args:
        model: The SentencePiece model.
        special_tokens: Added tokens whatever their type in the model.

    Raises:
        InputError: SentencePiece does not accept the model.
    """

    def __init__(self, model: Message, special_tokens: Sequence[str]) -> None:
        added = {
            piece.piece for piece in model.pieces if piece.type in _ADDED_TYPES
        }
        self._added = match_any(added | set(special_tokens))
        self._has_charsmap = bool(model.normalizer_spec.precompiled_charsmap)
        self._proto = _plain_model(model).SerializeToString()
        try:
            tf_text.SentencepieceTokenizer(self._proto)
        except tf.errors.OpError as error:
            raise InputError(
                "Expected a SentencePiece model, found one that does not "
                f"load: {_TRACE.sub('', error.message)}"
            ) from error

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Tokenises texts, without ends: (batch,) to int32 (batch, None)."""
        # Anew in each graph: the resource belongs to the op that made it, and
        # is lost with TensorFlow's caches (`keras.utils.set_random_seed` clears
        # them) where that op was run eagerly.
        pieces = tf_text.SentencepieceTokenizer(self._proto)
        # A cut that stands in the text becomes another control character.
        texts = tf.strings.regex_replace(_valid(texts), _CUT, "\x02")
        texts = tf.strings.regex_replace(
            texts, f"({self._added})", rf"{_CUT}\1{_CUT}"
        )
        parts = tf.strings.split(texts, _CUT)  # (batch, parts)
        flat = parts.flat_values
        is_added = tf.strings.regex_full_match(flat, self._added)
        token_ids = tf.concat(
            [
                self._tokenize_words(tf.where(is_added, "", flat), pieces),
                tf.RaggedTensor.from_row_lengths(
                    pieces.string_to_id(tf.boolean_mask(flat, is_added)),
                    tf.cast(is_added, tf.int64),
                ),
            ],
            axis=1,
        )
        return parts.with_flat_values(token_ids).merge_dims(1, 2)

    def _tokenize_words(
        self, texts: tf.Tensor, pieces: tf_text.SentencepieceTokenizer
    ) -> tf.RaggedTensor:
        """Tokenises texts without added tokens: (rows,) to (rows, None)."""
        texts = normalize(texts)
        # Only the unknown piece is no piece of transformers' Unigram here.
        texts = tf.strings.regex_replace(texts, "<unk>", _UNKNOWN_CHARACTER)
        if self._has_charsmap:
            # transformers does not join the parts of a Hangul syllable; the
            # model deletes the control character.
            texts = tf.strings.regex_replace(texts, _HANGUL_PARTS, "\\1\x02")
        words = tf.strings.split(texts, " ")
        return pieces.tokenize(words).merge_dims(1, 2)


def _valid(texts: tf.Tensor) -> tf.Tensor:
    texts = tf.strings.unicode_transcode(
        texts, "UTF-8", "UTF-8", errors="replace"
    )
    # Lower-casing ends a text at its first zero byte.
    return tf.strings.regex_replace(texts, r"\x00", _UNKNOWN_CHARACTER)


def _plain_model(model: Message) -> Message:
    """The model as transformers' Unigram has it: all pieces are alike."""
    # Splits of a word that tie in transformers' float64 tie in SentencePiece's
    # float32: rounded scores sum up exactly while the sum is small. Scores rise
    # by a constant per letter to keep it so, which changes no choice as each
    # split spends all letters.
    plain = protos.ModelProto()
    plain.CopyFrom(model)
    if not plain.normalizer_spec.precompiled_charsmap:
        plain.normalizer_spec.precompiled_charsmap = _EMPTY_CHARSMAP
    for piece in plain.pieces:
        if piece.type in (Piece.CONTROL, Piece.USER_DEFINED):
            piece.type = Piece.NORMAL
        if model.trainer_spec.model_type == protos.TrainerSpec.UNIGRAM:
            score = piece.score + _LETTER_SCORE * len(piece.piece)
            piece.score = round(score / _SCORE_STEP) * _SCORE_STEP
    return plain
