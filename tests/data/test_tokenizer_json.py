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


def added(piece_id, content, *, special=True, **flags):
    names = ("single_word", "lstrip", "rstrip", "normalized")
    own = {"id": piece_id, "content": content, "special": special}
    return {**own, **dict.fromkeys(names, False), **flags}


# A table without an entry.
CHARSMAP = base64.b64encode((1024).to_bytes(4, "little") + bytes(1025)).decode()
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
            {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
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


def without(*path):
    """The content without a field."""
    content = json.loads(changed())
    *parents, last = path
    target = content
    for name in parents:
        target = target[name]
    del target[last]
    return json.dumps(content).encode()


def parse(content):
    model = protos.ModelProto()
    model.ParseFromString(to_sentencepiece(content))
    return model


@pytest.fixture
def model():
    return parse(changed())


# === What is read ===


def test_pieces_scores_and_types_are_the_files(model):
    assert [(p.piece, p.score, p.type) for p in model.pieces] == [
        ("<pad>", 0.0, CONTROL),
        ("<unk>", 0.0, UNKNOWN),
        *((token, 0.0, CONTROL) for token in SPECIAL[2:]),
        ("-", 0.0, USER_DEFINED),
        ("\u2581", -2.5, NORMAL),
        ("\u2581a", -3.25, NORMAL),
        ("b", -4.0, NORMAL),
        ("<image>", 0.0, USER_DEFINED),
    ]
    spec = model.trainer_spec
    assert (spec.model_type, spec.unk_id, spec.unk_piece) == (1, 1, "<unk>")
    types = [piece.type for piece in parse(without("added_tokens")).pieces]
    assert types == [NORMAL, UNKNOWN, *[NORMAL] * 7]


def test_normalisation_is_the_files(model):
    spec = model.normalizer_spec
    assert spec.precompiled_charsmap == base64.b64decode(CHARSMAP)
    assert spec.add_dummy_prefix
    assert spec.remove_extra_whitespaces
    assert spec.escape_whitespaces


def test_type_may_be_missing_and_the_charsmap_deep(model):
    nested = {"type": "Sequence", "normalizers": [CONTENT["normalizer"]]}
    for content in (without("model", "type"), changed(normalizer=nested)):
        assert parse(content) == model


# === What is refused ===


def normalizers(*types):
    steps = CONTENT["normalizer"]["normalizers"]
    kept = [step for step in steps if step["type"] in types]
    return changed(normalizer={"type": "Sequence", "normalizers": kept})


ALL = ("NFKD", "StripAccents", "Lowercase", "Precompiled")
NO_TOKENIZER = "Expected a tokenizer.json; "
WORDPIECE = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": {"[UNK]": 0},
}
BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
FALSE = r"`normalized` and `single_word` false; found .*'<pad>'"
NO_STEPS = "found none of type "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", NO_TOKENIZER),
        (b"\xff\xfe\x00", NO_TOKENIZER),
        (b"[1]", NO_TOKENIZER),
        (b"{}", NO_TOKENIZER),
        (changed(model__vocab=[["a", 0.0], "bcd"]), NO_TOKENIZER + '.*"bcd"'),
        (changed(model__unk_id=9), NO_TOKENIZER + ".*UnkId"),
        (changed(added_tokens=["[CLS]"]), NO_TOKENIZER),
        (changed(model=WORDPIECE), "`model.type` .*; found 'WordPiece'"),
        (changed(model=BPE), "`model.type` must be 'Unigram'; found 'BPE'"),
        (changed(model__unk_id=None), "`model.unk_id` must be .*; found null"),
        (changed(added_tokens=[added(0, "<pad>", normalized=True)]), FALSE),
        (changed(added_tokens=[added(0, "<pad>", single_word=True)]), FALSE),
        (changed(normalizer=None), NO_STEPS + ", ".join(ALL)),
        (normalizers(*ALL[:3]), NO_STEPS + r"Precompiled\."),
        (normalizers(*ALL[:2], ALL[3]), NO_STEPS + r"Lowercase\."),
        (normalizers(*ALL[2:]), NO_STEPS + r"NFKD, StripAccents\."),
    ],
)
def test_other_contents_are_refused_by_field(content, message):
    with pytest.raises(InputError, match=message):
        to_sentencepiece(content)


# === tokenizer_config.json ===


def test_config_of_alberts_normalisation_passes():
    check_config(b"{}")
    check_config(b'{"do_lower_case": true, "keep_accents": false}')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"do_lower_case": false}', "_case` must be true.*; found f"),
        (b'{"keep_accents": true}', "`keep_accents` must be false.*; found t"),
        (b"{", "Expected a JSON object; "),
        (b"null", "Expected a JSON object; "),
    ],
)
def test_config_of_another_normalisation_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        check_config(content)


# === Folders ===

NO_SPECIAL = changed(model__vocab=[["<pad>", 0], ["<unk>", 0]], added_tokens=[])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        # `tokenizer.json` goes before the other.
        (
            {"tokenizer.json": changed(model=BPE), "spiece.model": b""},
            r"/tokenizer\.json: `model\.type` .* found 'BPE'",
        ),
        (
            {"tokenizer.json": NO_SPECIAL},
            r"/tokenizer\.json: .* lacks the special tokens \['\[",
        ),
        (
            {"tokenizer_config.json": b'{"do_lower_case": false}'},
            r"/tokenizer_config\.json: `do_lower_case` must be",
        ),
        (
            {"vocab.txt": b""},
            r"hf: expected .*tokenizer\.json or spiece\.model\), found "
            r"\['vocab\.txt'\]",
        ),
        ({}, "hf: expected .*, found nothing"),
    ],
)
def test_folder_of_something_else_is_refused(tmp_path, files, message):
    folder = tmp_path / "hf"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        CaptionTokenizer.from_checkpoint(folder)


def test_folder_of_a_sentencepiece_model_is_read(tmp_path):
    proto = CaptionTokenizer.from_captions(["a red square"]).proto
    (tmp_path / "spiece.model").write_bytes(proto)
    assert CaptionTokenizer.from_checkpoint(str(tmp_path)).proto == proto
    with pytest.raises(InputError, match=r"gone: expected .*, found nothing"):
        CaptionTokenizer.from_checkpoint(tmp_path / "gone")
