"""The pieces of a SentencePiece model that captions use, and no others."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from bmt_keras.data.tokenizer import WORD_START, CaptionTokenizer
from bmt_keras.data.tokenizer_graph import parse_model

# Its classes are made at run time: a type checker sees none.
_protos: Any = sentencepiece_model_pb2
_NORMAL = _protos.ModelProto.SentencePiece.NORMAL


def prune_vocabulary(
    tokenizer: CaptionTokenizer, captions: Sequence[str], min_count: int = 1
) -> CaptionTokenizer:
    """Drops the pieces that captions use rarely or not at all.

    A model that is trained from scratch learns nothing of them, and pays for
    their logits at every step. Single characters stay, so that words which the
    captions lack can still be spelt, and so do special tokens and added ones.
    Captions without a dropped piece are split as before, other texts more
    finely.

    Args:
        tokenizer: The whole vocabulary.
        captions: The training captions.
        min_count: How often captions use a piece that stays.

    Returns:
        A tokenizer with the remaining pieces in their order.
    """
    counts = Counter(i for ids in tokenizer.encode(captions) for i in ids)
    model: Any = parse_model(tokenizer.proto)
    pieces = [
        piece
        for i, piece in enumerate(model.pieces)
        if counts[i] >= min_count
        or piece.type != _NORMAL
        or len(piece.piece.replace(WORD_START, "")) <= 1
    ]
    del model.pieces[:]
    model.pieces.extend(pieces)
    return CaptionTokenizer(model.SerializeToString())
