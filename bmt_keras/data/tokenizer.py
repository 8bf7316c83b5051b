"""Captions to token ids and back, by a SentencePiece model."""

import io
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sentencepiece
import tensorflow as tf

from bmt_keras.data.sentencepiece_graph import (
    Piece,
    TokenizerGraph,
    as_tensor,
    match_any,
    normalize,
    parse_model,
)
from bmt_keras.data.tokenizer_json import check_config, to_sentencepiece
from bmt_keras.errors import InputError

_LOGGER = logging.getLogger(__name__)
PAD, UNKNOWN, CLS, SEP, MASK = "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (PAD, UNKNOWN, CLS, SEP, MASK)
WORD_START = "\u2581"  # SentencePiece's sign for a space
_HYPHEN = "-"
# A hyphen that is a token of its own joins the words at its sides.
_JOIN = "\x01"
_JOINED = f"{_JOIN}{WORD_START}?"
_T = TypeVar("_T")


class CaptionTokenizer:
    """Turns captions into token ids and back.

    Wraps a SentencePiece model with ALBERT's special tokens `<pad>`, `<unk>`,
    `[CLS]`, `[SEP]` and `[MASK]`: ALBERT's own, or one of whole words made by
    `CaptionTokenizer.from_captions`. The ids are those of transformers'
    `AlbertTokenizer`; a special token that stands in a text is that token.

    Args:
        proto: The serialised SentencePiece model.

    Raises:
        InputError: It is no SentencePiece model, or lacks a special token.

    Example:
        >>> tokenizer = CaptionTokenizer.from_file("spiece.model")
        >>> tokenizer.encode(["A man rides a horse."])
    """

    def __init__(self, proto: bytes) -> None:
        model = parse_model(proto)
        self.proto = proto
        self.vocabulary = [piece.piece for piece in model.pieces]
        self.vocabulary_size = len(self.vocabulary)
        missing = [t for t in SPECIAL_TOKENS if t not in self.vocabulary[:100]]
        if missing:
            raise InputError(
                f"The SentencePiece model lacks the special tokens {missing}; "
                f"expected all of {list(SPECIAL_TOKENS)}, as ALBERT's "
                "spiece.model has them."
            )
        ids = [self.vocabulary.index(token) for token in SPECIAL_TOKENS]
        self.special_token_ids = ids
        self.pad_token_id, self.unknown_token_id = ids[:2]
        self.cls_token_id, self.sep_token_id, self.mask_token_id = ids[2:]
        self._graph = TokenizerGraph(model, SPECIAL_TOKENS)
        self._traced: dict[int | None, Any] = {}
        # Special tokens leave nothing behind in a text.
        texts = dict.fromkeys(SPECIAL_TOKENS, "") | {_HYPHEN: _HYPHEN + _JOIN}
        self._texts = [texts.get(piece, piece) for piece in self.vocabulary]

    @classmethod
    def from_file(cls, path: str | Path) -> "CaptionTokenizer":
        """Reads a SentencePiece model, such as ALBERT's `spiece.model`."""
        path = Path(path)
        if not path.is_file():
            raise InputError(
                f"{path}: expected a SentencePiece model (spiece.model), found "
                "no such file."
            )
        return _read(path, cls)

    @classmethod
    def from_checkpoint(cls, folder: str | Path) -> "CaptionTokenizer":
        """Reads the tokenizer of an ALBERT folder in Hugging Face's layout.

        `tokenizer.json` goes before `spiece.model`, as in transformers.

        Raises:
            InputError: Neither is there, or it asks for what is not done here.
        """
        folder = Path(folder)
        config = folder / "tokenizer_config.json"
        json = folder / "tokenizer.json"
        if config.is_file():
            _read(config, check_config)
        if json.is_file():
            return _read(json, lambda content: cls(to_sentencepiece(content)))
        if (folder / "spiece.model").is_file():
            return cls.from_file(folder / "spiece.model")
        found = sorted(path.name for path in folder.glob("*")) or "nothing"
        raise InputError(
            f"{folder}: expected a tokenizer (tokenizer.json or spiece.model), "
            f"found {found}."
        )

    @classmethod
    def from_captions(cls, captions: Iterable[str]) -> "CaptionTokenizer":
        """Makes a small closed vocabulary, of each word of the captions.

        Raises:
            InputError: The captions hold no word.
        """
        # With pieces, parallel decoding can join halves of different words.
        plain = tf.strings.regex_replace(
            as_tensor(captions), match_any(SPECIAL_TOKENS), " "
        )
        texts = [text.decode() for text in normalize(plain).numpy() if text]
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
    def continuing_token_ids(self) -> list[int]:
        """Ids of the pieces that go on with the word before them."""
        special = set(self.special_token_ids)
        return [
            i
            for i, piece in enumerate(self.vocabulary)
            if i not in special and not piece.startswith(WORD_START)
        ]

    def save(self, path: str | Path) -> None:
        """Writes the SentencePiece model."""
        Path(path).write_bytes(self.proto)

    def encode(
        self, texts: Sequence[str], *, sequence_length: int | None = None
    ) -> list[list[int]]:
        """Encodes texts as `[CLS] … [SEP]`, each as a list of token ids.

        Args:
            texts: Texts.
            sequence_length: Longest result, `[CLS]` and `[SEP]` included;
                longer texts lose their last tokens. At least 2.
        """
        # Traced once: run eagerly, each call would load the model anew.
        if sequence_length not in self._traced:
            self._traced[sequence_length] = tf.function(
                partial(self.encode_tensor, sequence_length=sequence_length),
                input_signature=[tf.TensorSpec((None,), tf.string)],
            )
        return self._traced[sequence_length](as_tensor(texts)).to_list()

    def encode_tensor(
        self, texts: tf.Tensor, *, sequence_length: int | None = None
    ) -> tf.RaggedTensor:
        """Does what `encode` does in TensorFlow ops, for a dataset or export.

        Args:
            texts: string, (batch,), UTF-8.
            sequence_length: As for `encode`.

        Returns:
            int32, (batch, None).
        """
        if sequence_length is not None and sequence_length < 2:
            raise ValueError(
                "`sequence_length` must be at least 2, for [CLS] and [SEP]. "
                f"Received: sequence_length={sequence_length}."
            )
        token_ids = self._graph(texts)
        if sequence_length is not None:
            token_ids = token_ids[:, : sequence_length - 2]
        column = tf.ones_like(texts, tf.int32)[:, None]
        return tf.concat(
            [self.cls_token_id * column, token_ids, self.sep_token_id * column],
            axis=1,
        )

    def decode(self, token_ids: Iterable[int]) -> str:
        """Joins tokens to a text; special tokens leave nothing behind."""
        joined = "".join(self._texts[i] for i in token_ids)
        return re.sub(_JOINED, "", joined).replace(WORD_START, " ").strip()

    def decode_tensor(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Does what `decode` does in ops: (batch, length) to (batch,)."""
        texts = tf.gather(tf.constant(self._texts), token_ids)
        joined = tf.strings.reduce_join(texts, axis=-1)
        joined = tf.strings.regex_replace(joined, _JOINED, "")
        return tf.strings.strip(
            tf.strings.regex_replace(joined, WORD_START, " ")
        )


def warn_of_cuts(
    token_ids: Sequence[Sequence[int]], sequence_length: int
) -> None:
    """Says how many captions lose their ends, and what would hold them."""
    lengths = sorted(map(len, token_ids))
    if cut := sum(length > sequence_length for length in lengths):
        most = lengths[math.ceil(0.99 * len(lengths)) - 1]
        _LOGGER.warning(
            "%d of %d captions lose their ends: they are longer than "
            "--sequence-length %d; %d holds 99 %% of all captions, %d all.",
            *(cut, len(lengths), sequence_length, most, lengths[-1]),
        )


def prune_vocabulary(
    tokenizer: CaptionTokenizer, captions: Sequence[str], min_count: int = 1
) -> CaptionTokenizer:
    """Drops the pieces that captions use fewer than `min_count` times.

    Captions without a dropped piece are split as before, other texts more
    finely. Special tokens and added ones stay.
    """
    # A model that is trained from scratch learns nothing of unused pieces, and
    # pays for their logits at every step. Single characters stay, so that words
    # which the captions lack can still be spelt.
    counts = Counter(i for ids in tokenizer.encode(captions) for i in ids)
    model = parse_model(tokenizer.proto)
    pieces = [
        piece
        for i, piece in enumerate(model.pieces)
        if counts[i] >= min_count
        or piece.type != Piece.NORMAL
        or len(piece.piece.replace(WORD_START, "")) <= 1
    ]
    del model.pieces[:]
    model.pieces.extend(pieces)
    return CaptionTokenizer(model.SerializeToString())


def _read(path: Path, parse: Callable[[bytes], _T]) -> _T:
    try:
        return parse(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
