"""Hugging Face's tokenizer.json as a SentencePiece model."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import Message
from tokenizers import Tokenizer

from bmt_keras.data.sentencepiece_graph import Piece, protos
from bmt_keras.errors import InputError

_NORMALIZERS = ("NFKD", "StripAccents", "Lowercase", "Precompiled")
_CONFIG_VALUES = {"do_lower_case": True, "keep_accents": False}


def check_config(content: bytes) -> None:
    """Refuses a tokenizer_config.json that asks for another normalisation.

    Raises:
        InputError: It is no JSON, or keeps capitals or accents.
    """
    try:
        config = dict(json.loads(content))
    except (TypeError, ValueError) as error:
        raise InputError(f"Expected a JSON object; {error}.") from error
    for field, expected in _CONFIG_VALUES.items():
        found = config.get(field, expected)
        if found != expected:
            raise InputError(
                f"`{field}` must be {json.dumps(expected)}, as capitals and "
                f"accents are not kept; found {json.dumps(found)}."
            )


def to_sentencepiece(content: bytes) -> bytes:
    """Makes a serialised SentencePiece model of ALBERT's tokenizer.json.

    Raises:
        InputError: It is no tokenizer.json, or a field is not as ALBERT's is.
    """
    try:
        # Early files lack fields: what comes back has them all, in one layout.
        tokenizer = json.loads(Tokenizer.from_buffer(content).to_str())
    except ValueError as error:
        raise InputError(f"Expected a tokenizer.json; {error}.") from error
    model = _to_unigram(tokenizer["model"])
    for token in tokenizer["added_tokens"]:
        _add_token(model, token)
    spec = model.normalizer_spec
    spec.precompiled_charsmap = _read_charsmap(tokenizer["normalizer"])
    spec.add_dummy_prefix = True
    spec.remove_extra_whitespaces = True
    spec.escape_whitespaces = True
    return model.SerializeToString()


def _to_unigram(content: Mapping[str, Any]) -> Message:
    if content["type"] != "Unigram":
        raise InputError(
            f"`model.type` must be 'Unigram'; found {content['type']!r}."
        )
    unknown_token_id = content["unk_id"]
    if unknown_token_id is None:
        raise InputError("`model.unk_id` must be an id; found null.")
    model = protos.ModelProto()
    for piece, score in content["vocab"]:
        model.pieces.add(piece=piece, score=score, type=Piece.NORMAL)
    model.pieces[unknown_token_id].type = Piece.UNKNOWN
    spec = model.trainer_spec
    spec.model_type = protos.TrainerSpec.UNIGRAM
    spec.unk_id = unknown_token_id
    spec.unk_piece = model.pieces[unknown_token_id].piece
    # The ends are ours to add: without these the trainer's defaults hold.
    spec.bos_id = spec.eos_id = spec.pad_id = -1
    return model


def _add_token(model: Any, token: Mapping[str, Any]) -> None:
    if token["normalized"] or token["single_word"]:
        raise InputError(
            "`added_tokens` must have `normalized` and `single_word` false; "
            f"found {token!r}."
        )
    # A token that was added after training follows the vocabulary.
    if token["id"] == len(model.pieces):
        model.pieces.add(piece=token["content"], score=0.0)
    # The model then tells by itself where a text is cut.
    piece = model.pieces[token["id"]]
    if piece.type != Piece.UNKNOWN:
        special = token["special"]
        piece.type = Piece.CONTROL if special else Piece.USER_DEFINED


def _read_charsmap(normalizer: Any) -> bytes:
    # Steps may be sequences of steps, however deep.
    steps = {step["type"]: step for step in _steps(normalizer)}
    missing = [name for name in _NORMALIZERS if name not in steps]
    if missing:
        raise InputError(
            f"`normalizer` must hold {', '.join(_NORMALIZERS)}; found none of "
            f"type {', '.join(missing)}."
        )
    return base64.b64decode(steps["Precompiled"]["precompiled_charsmap"])


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    if normalizer is not None:
        yield normalizer
        for step in normalizer.get("normalizers", []):
            yield from _steps(step)
