import numpy as np
import pytest
import tensorflow as tf
from sentencepiece import sentencepiece_model_pb2 as protos

from bmt_keras.data.sentencepiece_graph import as_tensor, normalize
from bmt_keras.data.tokenizer import (
    SPECIAL_TOKENS,
    CaptionTokenizer,
    prune_vocabulary,
)
from bmt_keras.errors import InputError

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
MASK_TEXT = "[MASK]"
CAPTIONS = ["A red square above a", "a red café", "a blue square"]
WORDS = ["▁a", "▁above", "▁blue", "▁cafe", "▁red", "▁square"]


@pytest.fixture(scope="module")
def tokenizer():
    return CaptionTokenizer.from_captions(CAPTIONS)


@pytest.fixture(scope="module")
def pieces_tokenizer(train_sentencepiece):
    """Pieces of words, as ALBERT's own model has."""
    proto = train_sentencepiece(
        ["a red square", "a blue circle"] * 5,
        vocab_size=30,
        user_defined_symbols=["-"],
    )
    return CaptionTokenizer(proto)


def tokens_of(tokenizer, ids):
    return [tokenizer.vocabulary[i] for i in ids]


# === Vocabulary ===


def test_vocabulary_is_the_special_tokens_and_every_word(tokenizer):
    assert tuple(tokenizer.vocabulary[:5]) == SPECIAL_TOKENS
    assert sorted(tokenizer.vocabulary[5:]) == WORDS
    assert tokenizer.vocabulary_size == 5 + len(WORDS)
    assert CaptionTokenizer.from_captions(CAPTIONS).proto == tokenizer.proto


def test_special_ids_are_alberts(tokenizer):
    names = ("pad", "unknown", "cls", "sep", "mask")
    found = [getattr(tokenizer, f"{name}_token_id") for name in names]
    assert (
        found == tokenizer.special_token_ids == [PAD, UNKNOWN, CLS, SEP, MASK]
    )


def test_pieces_that_continue_a_word_are_known(tokenizer, pieces_tokenizer):
    assert tokenizer.continuing_token_ids == []
    pieces = tokens_of(pieces_tokenizer, pieces_tokenizer.continuing_token_ids)
    assert "-" in pieces
    assert not any(piece.startswith(("▁", "[", "<")) for piece in pieces)


def test_special_tokens_in_captions_are_no_words():
    tokenizer = CaptionTokenizer.from_captions(["a[MASK]red <pad> [mask]"])
    assert sorted(tokenizer.vocabulary[5:]) == ["▁[mask]", "▁a", "▁red"]


@pytest.mark.parametrize("captions", [[], ["", " \n"], ["\u0301"], [MASK_TEXT]])
def test_captions_without_a_word_are_refused(captions):
    with pytest.raises(InputError, match="captions with words, found none"):
        CaptionTokenizer.from_captions(captions)


# === Normalisation ===


NORMALISED = {
    "A Red Square": "a red square",
    "``quoted''": '"quoted"',
    "ΟΔΟΣ İI": "οδοσ ii",
    "a\ud800b": "a\ufffd\ufffd\ufffdb",
    "Café Ångström": "cafe angstrom",
    "ﬁne ①": "fine 1",
    " a\tred \n square\u2028there\u3000now ": "a red square there now",
    "a\x85b\u1680c\u2029d\r\ne\ff": "a b c d e f",
    "": "",
}


def test_captions_are_normalised(tokenizer):
    found = [text.decode() for text in normalize(as_tensor(NORMALISED)).numpy()]
    assert found == list(NORMALISED.values())
    plain, odd = tokenizer.encode(["a red cafe", "  A\nRED\tcafé "])
    assert plain == odd
    assert UNKNOWN not in plain


# === Encoding ===


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A blue square", ["▁a", "▁blue", "▁square"]),
        ("a zebra", ["▁a", "<unk>"]),
        ("a [MASK] square", ["▁a", "[MASK]", "▁square"]),
        ("a[MASK]square", ["▁a", "[MASK]", "▁square"]),
        ("[SEP] <pad>a<unk>[CLS]", ["[SEP]", "<pad>", "▁a", "<unk>", "[CLS]"]),
        # In other letters these are words.
        ("a [mask] [sep]", ["▁a", "<unk>", "<unk>"]),
        # No Unicode.
        ("a \ud800 red", ["▁a", "<unk>", "▁red"]),
        ("", []),
        ("  ", []),
        ("\u0301", []),
    ],
)
def test_text_is_encoded_between_cls_and_sep(tokenizer, text, tokens):
    (ids,) = tokenizer.encode([text])
    assert (ids[0], ids[-1]) == (CLS, SEP)
    assert tokens_of(tokenizer, ids[1:-1]) == tokens


def test_hyphen_of_its_own_parts_words(pieces_tokenizer):
    apart, joined = pieces_tokenizer.encode(["a - circle", "a-circle"])
    tokens = tokens_of(pieces_tokenizer, joined[1:-1])
    assert tokens == ["▁", "a", "-", "▁circle"]
    assert apart == joined


def test_bytes_that_are_no_unicode_are_encoded(tokenizer):
    (ids,) = tokenizer.encode_tensor(tf.constant([b"a \xff red"])).to_list()
    assert tokens_of(tokenizer, ids[1:-1]) == ["▁a", "<unk>", "▁red"]


def test_cut_caption_keeps_its_ends_and_first_words(tokenizer):
    (ids,) = tokenizer.encode(["a red square above a"], sequence_length=4)
    assert (ids[0], ids[-1]) == (CLS, SEP)
    assert tokens_of(tokenizer, ids[1:-1]) == ["▁a", "▁red"]
    whole = tokenizer.encode(["a red square"])
    assert tokenizer.encode(["a red square"], sequence_length=5) == whole


def test_length_without_room_for_the_ends_is_refused(tokenizer):
    for length in (-1, 0, 1):
        with pytest.raises(ValueError, match=rf"at least 2.*={length}\."):
            tokenizer.encode(["a"], sequence_length=length)


def test_nothing_gives_nothing(tokenizer):
    assert tokenizer.encode([]) == []
    assert tokenizer.encode([], sequence_length=4) == []
    assert tokenizer.decode_tensor(tf.zeros((0, 4), tf.int32)).shape == (0,)


# === Decoding ===


def test_decoded_text_is_the_encoded_one(tokenizer, pieces_tokenizer):
    texts = ["a red square", "a", "a blue red a blue"]
    for each in (tokenizer, pieces_tokenizer):
        assert [each.decode(ids) for ids in each.encode(texts)] == texts


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["▁circle", "-", "▁circle"], "circle-circle"),
        (["▁circle", "-", "a"], "circle-a"),
        (["▁circle", "-", "-", "▁circle", "-"], "circle--circle-"),
        (["-", "▁circle"], "-circle"),
        (["▁circle", "-", "[MASK]", "▁circle"], "circle-circle"),
        (["▁circle", "[MASK]", "▁circle"], "circle circle"),
    ],
)
def test_hyphen_of_its_own_joins_its_sides(pieces_tokenizer, pieces, expected):
    ids = [pieces_tokenizer.vocabulary.index(piece) for piece in pieces]
    assert pieces_tokenizer.decode(ids) == expected
    (found,) = pieces_tokenizer.decode_tensor(tf.constant([ids])).numpy()
    assert found.decode() == expected


def test_hyphen_that_was_a_word_stays_one():
    tokenizer = CaptionTokenizer.from_captions(["a - b t-shirt well- made"])
    (ids,) = tokenizer.encode(["a - b t-shirt well- made"])
    assert tokenizer.decode(ids) == "a - b t-shirt well- made"
    (found,) = tokenizer.decode_tensor(tf.constant([ids])).numpy()
    assert found == b"a - b t-shirt well- made"


def test_special_tokens_leave_nothing_behind(tokenizer):
    (ids,) = tokenizer.encode(["a [MASK] zebra red"])
    assert tokenizer.decode([*ids, PAD, PAD]) == "a red"
    assert tokenizer.decode(range(5)) == ""
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("name", ["tokenizer", "pieces_tokenizer"])
def test_decoding_in_the_graph_is_the_same(request, name):
    tokenizer = request.getfixturevalue(name)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, tokenizer.vocabulary_size, (40, 9), np.int32)
    ids[0] = PAD
    decode = tf.function(tokenizer.decode_tensor)
    found = [text.decode() for text in decode(tf.constant(ids)).numpy()]
    assert found == [tokenizer.decode(row) for row in ids]
    assert found[0] == ""
    assert len(set(found)) > 30


# === Files ===


def test_saved_model_reads_back(tokenizer, pruned, tmp_path):
    for each in (tokenizer, pruned):
        each.save(tmp_path / "spiece.model")
        again = CaptionTokenizer.from_file(str(tmp_path / "spiece.model"))
        assert again.vocabulary == each.vocabulary
        assert again.encode(["a red café"]) == each.encode(["a red café"])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.model: .* no such file"):
        CaptionTokenizer.from_file(tmp_path / "gone.model")


def test_file_of_something_else_is_named(tmp_path, capfd):
    path = tmp_path / "spiece.model"
    for content in (b"", b"abc", b"\x00" * 100):
        path.write_bytes(content)
        rule = rf"spiece\.model: .* found {len(content)} bytes"
        with pytest.raises(InputError, match=rule):
            CaptionTokenizer.from_file(path)
    assert capfd.readouterr().err == ""


def test_model_that_sentencepiece_refuses_is_refused(tokenizer, capfd):
    with pytest.raises(InputError, match="Expected a SentencePiece model"):
        CaptionTokenizer(tokenizer.proto[: len(tokenizer.proto) // 2])
    model = protos.ModelProto.FromString(tokenizer.proto)
    model.pieces[7].piece = model.pieces[6].piece
    with pytest.raises(
        InputError, match=r"does not load: \S+ is already defined\.$"
    ):
        CaptionTokenizer(model.SerializeToString())
    assert capfd.readouterr().err == ""


def test_model_without_special_tokens_is_refused(tokenizer):
    model = protos.ModelProto.FromString(tokenizer.proto)
    for piece in (model.pieces[PAD], model.pieces[MASK]):
        piece.piece += "x"
    with pytest.raises(
        InputError, match=r"lacks the special tokens \['<pad>', '\[MASK\]'\]"
    ):
        CaptionTokenizer(model.SerializeToString())


def test_tokenizer_outlives_tensorflows_caches(pieces_tokenizer):
    """Seeding deletes the resources that eager ops own."""
    texts = ["a red square", "a [MASK] circle"]
    eager = pieces_tokenizer.encode_tensor(tf.constant(texts)).to_list()
    before = pieces_tokenizer.encode(texts)
    tf.random.set_seed(0)
    assert pieces_tokenizer.encode(texts) == before == eager
    again = pieces_tokenizer.encode_tensor(tf.constant(texts))
    assert again.to_list() == before


# === Pruning ===

PRUNED_BY = ["a red dog-sled", "two red dogs"]
LONG_WORDS = ["a", "red", "dog", "sled", "two", "blue", "circle", "bird"]


@pytest.fixture(scope="module")
def whole():
    """A unigram model of letters, which are unlikely, words, and an `s`."""
    model = protos.ModelProto()
    kinds = protos.ModelProto.SentencePiece

    def add(pieces, score, kind=kinds.NORMAL):
        for piece in pieces:
            model.pieces.add(piece=piece, score=score, type=kind)

    add(["<pad>", "[CLS]", "[SEP]", "[MASK]"], 0.0, kinds.CONTROL)
    add(["<unk>"], 0.0, kinds.UNKNOWN)
    add(["-"], 0.0, kinds.USER_DEFINED)
    add(["▁"], -8.0)
    add(sorted({letter for word in LONG_WORDS for letter in word}), -8.0)
    add([f"▁{word}" for word in LONG_WORDS if len(word) > 1], -2.0)
    add(["▁a"], -1.0)
    model.trainer_spec.unk_id = 4
    model.trainer_spec.bos_id = model.trainer_spec.eos_id = -1
    return CaptionTokenizer(model.SerializeToString())


@pytest.fixture(scope="module")
def pruned(whole):
    return prune_vocabulary(whole, PRUNED_BY)


def pieces(tokenizer, text):
    (ids,) = tokenizer.encode([text])
    return tokens_of(tokenizer, ids)


def test_unused_pieces_go_and_the_order_stays(whole, pruned):
    for caption in PRUNED_BY:
        assert pieces(pruned, caption) == pieces(whole, caption)
    assert pruned.vocabulary_size < whole.vocabulary_size
    kept = set(pruned.vocabulary)
    assert pruned.vocabulary == [p for p in whole.vocabulary if p in kept]
    gone = set(whole.vocabulary) - kept
    assert all(len(piece.strip("▁")) > 1 for piece in gone)
    # Special and added ones stay.
    assert pruned.special_token_ids == whole.special_token_ids
    assert "-" in pruned.vocabulary


def test_other_words_are_spelt(whole, pruned):
    text = "blue circle"
    assert pruned.unknown_token_id not in pruned.encode([text])[0]
    assert pruned.decode(pruned.encode([text])[0]) == text
    assert len(pieces(pruned, text)) > len(pieces(whole, text))


def test_rare_pieces_go_and_their_words_are_spelt(whole):
    captions = ["a red dog", "a red dog", "a red bird"]
    pruned = prune_vocabulary(whole, captions, min_count=2)
    assert "▁red" in pruned.vocabulary
    assert "▁bird" not in pruned.vocabulary
    assert pieces(pruned, "a red dog") == pieces(whole, "a red dog")
    assert pieces(pruned, "bird")[1:-1] == ["▁", *"bird"]
