"""Hugging Face's tokenizer.json as a SentencePiece model."""

import base64
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from bmt_keras.data.sentencepiece_graph import Piece, protos
from bmt_keras.errors import InputError

_NORMALIZERS = ("NFKD", "StripAccents", "Lowercase", "Precompiled")
_CONFIG_VALUES = {"do_lower_case": True, "keep_accents": False}


def check_config(content: bytes) -> None:
    """Refuses a tokenizer_config.json that asks for another normalisation.

    Raises:
        InputError: It is no JSON, or keeps capitals or accents.
    """
    config = _read_object(content)
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
        InputError: It is no JSON, or a field is not as ALBERT's is.
    """
    tokenizer = _read_object(content)
    model = _read_unigram(tokenizer.get("model"))
    for token in _list_of("added_tokens", tokenizer.get("added_tokens", [])):
        _add_token(model, token)
    spec = model.normalizer_spec
    spec.precompiled_charsmap = _read_charsmap(tokenizer.get("normalizer"))
    spec.add_dummy_prefix = True
    spec.remove_extra_whitespaces = True
    spec.escape_whitespaces = True
    return model.SerializeToString()


def _read_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise InputError(f"Expected JSON; {error}.") from error
    if not isinstance(value, dict):
        raise InputError(
            f"Expected a JSON object, found {type(value).__name__}."
        )
    return value


def _list_of(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(
            f"`{field}` must be a list; found {type(value).__name__}."
        )
    return value


def _read_unigram(content: Any) -> Message:
    content = content if isinstance(content, dict) else {}
    vocabulary = content.get("vocab")
    # Early files of Unigram models have no type, but a list of pairs.
    default = "Unigram" if isinstance(vocabulary, list) else None
    if (kind := content.get("type", default)) != "Unigram":
        raise InputError(f"`model.type` must be 'Unigram'; found {kind!r}.")
    model = protos.ModelProto()
    for pair in _list_of("model.vocab", vocabulary):
        _add_piece(model, pair)
    unknown_token_id = content.get("unk_id")
    if not _is_id(unknown_token_id, model):
        raise InputError(
            "`model.unk_id` must be the id of the unknown piece; found "
            f"{unknown_token_id!r}."
        )
    model.pieces[unknown_token_id].type = Piece.UNKNOWN
    spec = model.trainer_spec
    spec.model_type = protos.TrainerSpec.UNIGRAM
    spec.unk_id = unknown_token_id
    spec.unk_piece = model.pieces[unknown_token_id].piece
    # The ends are ours to add: without these the trainer's defaults hold.
    spec.bos_id = spec.eos_id = spec.pad_id = -1
    return model


def _add_piece(model: Message, pair: Any) -> None:
    try:
        piece, score = pair
        model.pieces.add(piece=piece, score=score, type=Piece.NORMAL)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"`model.vocab` must hold pairs of piece and score; found {pair!r}."
        ) from error


def _is_id(value: Any, model: Message) -> bool:
    return isinstance(value, int) and 0 <= value < len(model.pieces)


def _add_token(model: Message, token: Any) -> None:
    try:
        piece_id, content = token["id"], token["content"]
        special = token["special"]
        plain = not (token.get("normalized") or token.get("single_word"))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "`added_tokens` must hold objects with id, content and special; "
            f"found {token!r}."
        ) from error
    if not plain:
        raise InputError(
            "`added_tokens` must have `normalized` and `single_word` false; "
            f"found {token!r}."
        )
    # A token that was added after training follows the vocabulary.
    if piece_id == len(model.pieces):
        _add_piece(model, (content, 0.0))
    if not _is_id(piece_id, model) or model.pieces[piece_id].piece != content:
        raise InputError(
            "`added_tokens` must have their ids in `model.vocab`, or follow "
            f"it; found {content!r} with id {piece_id!r}."
        )
    # The model then tells by itself where a text is cut.
    piece = model.pieces[piece_id]
    if piece.type != Piece.UNKNOWN:
        piece.type = Piece.CONTROL if special else Piece.USER_DEFINED


def _read_charsmap(normalizer: Any) -> bytes:
    # Steps may be sequences of steps, however deep.
    steps = {step.get("type"): step for step in _steps(normalizer)}
    missing = [name for name in _NORMALIZERS if name not in steps]
    if missing:
        raise InputError(
            f"`normalizer` must hold {', '.join(_NORMALIZERS)}; found none of "
            f"type {', '.join(missing)}."
        )
    try:
        charsmap = steps["Precompiled"]["precompiled_charsmap"]
        return base64.b64decode(charsmap, validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "`normalizer` must hold `precompiled_charsmap` in base64; found "
            "something else."
        ) from error


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    if isinstance(normalizer, dict):
        yield normalizer
        for step in normalizer.get("normalizers", []):
            yield from _steps(step)
