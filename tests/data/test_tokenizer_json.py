import base64
import copy
import json

import pytest
from sentencepiece import sentencepiece_model_pb2 as protos

from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.data.tokenizer_json import check_config, to_sentencepiece
from bmt_keras.errors import InputError

SPECIAL = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4


def added(piece_id, content, **flags):
    return {
        "id": piece_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
        **flags,
    }


CONTENT = {
    "added_tokens": [
        *(added(i, token) for i, token in enumerate(SPECIAL)),
        added(5, "-", special=False),
        added(9, "<image>", special=False),
    ],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFKD"},
            {"type": "StripAccents"},
            {"type": "Lowercase"},
            {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="},
        ],
    },
    "model": {
        "type": "Unigram",
        "unk_id": 1,
        "vocab": [
            *([token, 0.0] for token in SPECIAL),
            ["-", 0.0],
            ["\u2581", -2.5],
            ["\u2581a", -3.25],
            ["b", -4],
        ],
    },
}


def changed(**fields):
    """The content with fields replaced, named by their path."""
    content = copy.deepcopy(CONTENT)
    for path, value in fields.items():
        *parents, last = path.split("__")
        target = content
        for name in parents:
            target = target[name]
        target[last] = value
    return json.dumps(content).encode()


@pytest.fixture
def model():
    model = protos.ModelProto()
    model.ParseFromString(to_sentencepiece(changed()))
    return model


# === What is read ===


def test_pieces_and_scores_are_those_of_the_vocabulary(model):
    assert [(piece.piece, piece.score) for piece in model.pieces] == [
        *((token, 0.0) for token in SPECIAL),
        ("-", 0.0),
        ("\u2581", -2.5),
        ("\u2581a", -3.25),
        ("b", -4.0),
        ("<image>", 0.0),
    ]


def test_added_tokens_give_the_types(model):
    assert [piece.type for piece in model.pieces] == [
        CONTROL,
        UNKNOWN,
        CONTROL,
        CONTROL,
        CONTROL,
        USER_DEFINED,
        NORMAL,
        NORMAL,
        NORMAL,
        USER_DEFINED,
    ]


def test_unknown_piece_and_kind_are_told(model):
    spec = model.trainer_spec
    assert (spec.model_type, spec.unk_id, spec.unk_piece) == (1, 1, "<unk>")


def test_normalisation_is_the_files(model):
    spec = model.normalizer_spec
    assert spec.precompiled_charsmap == base64.b64decode("AAAAAA==")
    assert spec.add_dummy_prefix
    assert spec.remove_extra_whitespaces
    assert spec.escape_whitespaces


def test_unigram_model_may_lack_its_type(model):
    content = json.loads(changed())
    del content["model"]["type"]
    proto = to_sentencepiece(json.dumps(content).encode())
    assert proto == model.SerializeToString()


def test_charsmap_is_found_however_deep():
    nested = {"type": "Sequence", "normalizers": [CONTENT["normalizer"]]}
    assert to_sentencepiece(changed(normalizer=nested)) == to_sentencepiece(
        changed()
    )


def test_file_without_added_tokens_has_ordinary_pieces():
    content = json.loads(changed())
    del content["added_tokens"]
    model = protos.ModelProto()
    model.ParseFromString(to_sentencepiece(json.dumps(content).encode()))
    types = [piece.type for piece in model.pieces]
    assert types == [NORMAL, UNKNOWN, *[NORMAL] * 7]


# === What is refused ===


def normalizers(*types):
    return {"type": "Sequence", "normalizers": [{"type": t} for t in types]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected JSON; "),
        (b"\xff\xfe\x00", "Expected JSON; "),
        (b"[1]", "Expected a JSON object, found list"),
        (b"{}", r"`model\.type` must be 'Unigram'; found None"),
        (changed(model="x"), r"`model\.type` must be 'Unigram'; found None"),
        (
            changed(model={"type": "WordPiece", "vocab": {"a": 0}}),
            r"`model\.type` must be 'Unigram'; found 'WordPiece'",
        ),
        (
            changed(model={"type": "BPE", "vocab": {"a": 0}, "merges": []}),
            r"`model\.type` must be 'Unigram'; found 'BPE'",
        ),
        (
            changed(model__vocab={"a": 0}),
            r"`model\.vocab` must be a list; found dict",
        ),
        (
            changed(model__vocab=[["a", 0.0], "bcd"]),
            "pairs of piece and score; found 'bcd'",
        ),
        (
            changed(model__vocab=[["a", "b"]]),
            r"pairs of piece and score; found \['a', 'b'\]",
        ),
        (changed(model__unk_id=None), r"`model\.unk_id` .*; found None"),
        (changed(model__unk_id=9), r"`model\.unk_id` .*; found 9"),
        (changed(added_tokens={}), "`added_tokens` must be a list; found dict"),
        (
            changed(added_tokens=[{"id": 0}]),
            r"id, content and special; found \{'id': 0\}",
        ),
        (
            changed(added_tokens=["[CLS]"]),
            r"id, content and special; found '\[CLS\]'",
        ),
        (
            changed(added_tokens=[added(0, "<pad>", normalized=True)]),
            r"`normalized` and `single_word` false; found .*'<pad>'",
        ),
        (
            changed(added_tokens=[added(0, "<pad>", single_word=True)]),
            r"`normalized` and `single_word` false; found .*'<pad>'",
        ),
        (
            changed(added_tokens=[added(1, "<pad>")]),
            "have their ids .*; found '<pad>' with id 1",
        ),
        (
            changed(added_tokens=[added(10, "<new>")]),
            "have their ids .*; found '<new>' with id 10",
        ),
        (
            changed(added_tokens=[added(-1, "b")]),
            "have their ids .*; found 'b' with id -1",
        ),
        (
            changed(normalizer=None),
            "found none of type NFKD, StripAccents, Lowercase, Precompiled",
        ),
        (
            changed(
                normalizer=normalizers("NFKD", "StripAccents", "Lowercase")
            ),
            r"found none of type Precompiled\.",
        ),
        (
            changed(
                normalizer=normalizers("NFKD", "StripAccents", "Precompiled")
            ),
            r"found none of type Lowercase\.",
        ),
        (
            changed(normalizer=normalizers("Lowercase", "Precompiled")),
            r"found none of type NFKD, StripAccents\.",
        ),
        (
            changed(
                normalizer=normalizers(
                    "NFKD", "StripAccents", "Lowercase", "Precompiled"
                )
            ),
            "`precompiled_charsmap` in base64",
        ),
    ],
)
def test_other_contents_are_refused_by_field(content, message):
    with pytest.raises(InputError, match=message):
        to_sentencepiece(content)


@pytest.mark.parametrize("charsmap", ["A", "A*==", 3, None])
def test_charsmap_must_be_base64(charsmap):
    content = json.loads(changed())
    content["normalizer"]["normalizers"][3]["precompiled_charsmap"] = charsmap
    with pytest.raises(InputError, match="`precompiled_charsmap` in base64"):
        to_sentencepiece(json.dumps(content).encode())


# === tokenizer_config.json ===


@pytest.mark.parametrize(
    "config", [{}, {"do_lower_case": True, "keep_accents": False}]
)
def test_config_of_alberts_normalisation_passes(config):
    check_config(json.dumps(config).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"do_lower_case": false}',
            "`do_lower_case` must be true.*; found f",
        ),
        (b'{"keep_accents": true}', "`keep_accents` must be false.*; found t"),
        (b"{", "Expected JSON; "),
        (b"null", "Expected a JSON object, found NoneType"),
    ],
)
def test_config_of_another_normalisation_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        check_config(content)


# === Folders ===


@pytest.fixture
def spiece():
    return CaptionTokenizer.from_captions(["a red square"]).proto


def test_folder_of_a_sentencepiece_model_is_read(tmp_path, spiece):
    (tmp_path / "spiece.model").write_bytes(spiece)
    assert CaptionTokenizer.from_checkpoint(str(tmp_path)).proto == spiece


def test_tokenizer_json_goes_before_the_sentencepiece_model(tmp_path, spiece):
    (tmp_path / "spiece.model").write_bytes(spiece)
    (tmp_path / "tokenizer.json").write_bytes(changed(model__type="BPE"))
    with pytest.raises(
        InputError, match=r"/tokenizer\.json: `model\.type` .* found 'BPE'"
    ):
        CaptionTokenizer.from_checkpoint(tmp_path)


def test_tokenizer_json_without_a_special_token_is_named(tmp_path):
    vocabulary = [["<pad>", 0.0], ["<unk>", 0.0], ["\u2581", -1.0]]
    content = changed(model__vocab=vocabulary, added_tokens=[])
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(
        InputError, match=r"/tokenizer\.json: .* lacks the special tokens \['\["
    ):
        CaptionTokenizer.from_checkpoint(tmp_path)


def test_config_that_keeps_capitals_is_named(tmp_path, spiece):
    (tmp_path / "spiece.model").write_bytes(spiece)
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"do_lower_case": false}')
    with pytest.raises(
        InputError, match=r"/tokenizer_config\.json: `do_lower_case` must be"
    ):
        CaptionTokenizer.from_checkpoint(tmp_path)


def test_folder_without_a_tokenizer_is_named(tmp_path):
    (tmp_path / "vocab.txt").touch()
    with pytest.raises(
        InputError,
        match=rf"{tmp_path}: expected .*tokenizer\.json or spiece\.model\), "
        r"found \['vocab\.txt'\]",
    ):
        CaptionTokenizer.from_checkpoint(tmp_path)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone: expected .*, found nothing"):
        CaptionTokenizer.from_checkpoint(tmp_path / "gone")
