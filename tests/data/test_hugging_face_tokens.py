# ruff: noqa: RUF001 (the texts are full of look-alikes on purpose)
"""Token ids are those of transformers' AlbertTokenizer on the same files."""

import json
import os
import random
import subprocess
import sys

import pytest
import tensorflow as tf
from transformers import AlbertTokenizer

from bmt_keras.data.tokenizer import CaptionTokenizer

SENTENCES = [
    "a man rides a well-known horse (brown) on the beach.",
    'two dogs " play " with a t-shirt - and a ball',
    "the 3 buses cost £5 or €6, they're full of people",
    "aaa aa a bbb bb b hahaha haa oooh ooo grrr rrr",
    "한국 사람 가나다 日本語 кот спит δρόμος σοφός",
]
LAYOUTS = ["spiece", "saved", "hub"]

TEXTS = {
    "empty": "",
    "spaces": " \t\n ",
    "sentence": "A man rides a horse.",
    "capitals": "A MAN RIDES",
    "accents": "Thé dógs plaÿ Å A\u030a e\u0301",
    "double quotes": "two \"dogs\" “play” ``now'' „here‟ «x»",
    "single quotes": "they're they’re ‘full’ `x` '''three''' ''''",
    "hyphens": "t-shirt t - shirt -t- --- t–shirt t—shirt t‐shirt t\u2011s",
    "added by normalising": "a－b （x） ﹣ ＂ a．b ＜ｐａｄ＞ <PAD> a<UNK>b",
    "parentheses": "(a) ((the)) a(b)c () )(",
    "money": "£5 €6 $7 £ 5 ￡5",
    "points": "a.b a. b ... … 3.5 .",
    "mask": "a [MASK] man [MASK][MASK] a[MASK]b [mask] [ MASK ] [MASK",
    "special tokens": "[CLS] a [SEP] <pad><unk> b</s> <s> [UNK] <pad",
    "broken special tokens": "[MA\x01SK] [MA\u200bSK] [MA\u00adSK] <p\x00ad>",
    "emoji": "a 🐶 dog🐶dog 🐶🐶 ❤ ❤️ ☺️",
    "joined emoji": "a 👨‍👩‍👧‍👦 man 🏳️‍🌈 👩🏽‍🚀",
    "skin tones and flags": "👍🏽 👍 🏽 🇰🇷🇩🇪 1️⃣",
    "han and kana": "日本語 日 本 か\u3099 ガ ｶﾞ 漢字 ㍿ ㈱",
    "hangul": "한국 사람 한국어 가나 ㅎㅏㄴ 한국 ﾡ",
    "zero width": "a\u200bman a\u200cman a\u200dman a\u2060man \ufeffman",
    "soft hyphen": "a\u00adman \u00ad",
    "control characters": "a\x01b\x02c\x0bd\x1fe\x7ff\x00g\x85h\x9fi",
    "spaces of all kinds": "a\u00a0b\u1680c\u2003d\u2028e\u202ff\u205fg\u3000h",
    "line ends": "a\r\nman\rrides\n\n\ta\fhorse",
    "word start": "▁a a▁man ▁ ▁▁",
    "replacement character": "a\ufffdman \ufffd",
    "sigma": "Σ ΟΔΟΣ ΣΟΦΌΣ, ΣΑΣ σοφός Σ.",
    "turkish": "İSTANBUL I ı i İ DIŞ",
    "ligatures": "ﬁne oﬃce ﬆ Ǆ ǅ ĳ ŉ ß ẞ",
    "full width": "Ａ ｍａｎ １２３ ，！",
    "digits and fractions": "① ½ ² 3² ٣ ३ Ⅳ ℃ ™",
    "arabic": "السلام عليكم سَلَامٌ ﷺ لا",
    "devanagari": "क्षि हिन्दी मु",
    "thai and hebrew": "สวัสดี שָׁלוֹם",
    "kelvin and angstrom": "K Å Ω ſ",
    "long word": "aman" * 60,
    "long unknown word": "語日字" * 30,
    "repeated letters": "aaaaaaaaaaa grrrrrrrr haaaaaahaaaa oooooohooo bbbbbbb",
    "unknown beside known": "日a日 a日語 the日",
    "private use": "a\ue000b \U0010ffff \ue000",
}


@pytest.fixture(scope="module")
def folders(train_sentencepiece, tmp_path_factory):
    """One tokenizer as a bare model, saved by transformers, and as the hub's.

    The hub's tokenizer.json names the special tokens alone as added.
    """
    spiece, saved, hub = (tmp_path_factory.mktemp(name) for name in LAYOUTS)
    proto = train_sentencepiece(
        SENTENCES * 4,
        vocab_size=190,
        character_coverage=1.0,
        user_defined_symbols=[*'()"-.–£€', "--"],
    )
    (spiece / "spiece.model").write_bytes(proto)
    AlbertTokenizer.from_pretrained(spiece).save_pretrained(saved)
    content = json.loads((saved / "tokenizer.json").read_text())
    content["added_tokens"] = content["added_tokens"][:5]
    content["added_tokens"][4]["lstrip"] = True
    (hub / "tokenizer.json").write_text(json.dumps(content))
    return dict(zip(LAYOUTS, (spiece, saved, hub), strict=True))


@pytest.fixture(scope="module")
def tokenizers(folders):
    """By layout, our tokenizer and transformers'."""
    return {
        layout: (
            CaptionTokenizer.from_checkpoint(folder),
            AlbertTokenizer.from_pretrained(folder),
        )
        for layout, folder in folders.items()
    }


@pytest.fixture(scope="module")
def tokenizer(tokenizers):
    return tokenizers["spiece"][0]


def random_texts(count):
    rng = random.Random(0)
    parts = [*"".join(TEXTS.values()), *" ".join(TEXTS.values()).split(" ")]
    return [
        "".join(rng.choices(parts, k=rng.randrange(1, 20)))
        for _ in range(count)
    ]


# === Equality with transformers ===


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_are_those_of_transformers(tokenizers, layout):
    ours, theirs = tokenizers[layout]
    for name, text in TEXTS.items():
        assert ours.encode([text]) == theirs([text])["input_ids"], name
    texts = random_texts(3000)
    expected = theirs(texts)["input_ids"]
    for text, *ids in zip(texts, ours.encode(texts), expected, strict=True):
        assert ids[0] == ids[1], text


@pytest.mark.parametrize("letters", ["gr", "or", "aho", "abhor"])
def test_ties_between_splits_fall_as_in_transformers(tokenizers, letters):
    ours, theirs = tokenizers["spiece"]
    rng = random.Random(0)
    words = ["".join(rng.choices(letters, k=i)) for i in range(1, 400)]
    assert ours.encode(words) == theirs(words)["input_ids"]


def test_characters_of_the_first_blocks_are_those_of_transformers(tokenizers):
    ours, theirs = tokenizers["spiece"]
    texts = [f"a{chr(i)}b {chr(i)}" for i in range(0x7FD)]
    assert ours.encode(texts) == theirs(texts)["input_ids"]


@pytest.mark.parametrize("sequence_length", [2, 7])
def test_cut_ids_are_those_of_transformers(tokenizers, sequence_length):
    ours, theirs = tokenizers["spiece"]
    texts = list(TEXTS.values())
    expected = theirs(texts, truncation=True, max_length=sequence_length)
    found = ours.encode(texts, sequence_length=sequence_length)
    assert found == expected["input_ids"]


def test_the_layouts_of_one_model_differ_where_transformers_does(tokenizers):
    spiece, saved, hub = (
        tokenizers[layout][0].encode(["a (t-shirt)"]) for layout in LAYOUTS
    )
    assert spiece == saved != hub


@pytest.mark.parametrize("layout", ["saved", "hub"])
def test_model_of_a_tokenizer_json_gives_its_ids(tokenizers, layout, tmp_path):
    ours, _ = tokenizers[layout]
    ours.save(tmp_path / "spiece.model")
    theirs = AlbertTokenizer.from_pretrained(tmp_path)
    texts = list(TEXTS.values())
    assert theirs(texts)["input_ids"] == ours.encode(texts)


# === The same ids everywhere ===


def test_ids_in_a_dataset_are_those_of_encode(tokenizer):
    texts = list(TEXTS.values())
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(16)
    dataset = dataset.map(
        lambda batch: tokenizer.encode_tensor(batch, sequence_length=9)
    )
    rows = [row for batch in dataset for row in batch.to_list()]
    assert rows == tokenizer.encode(texts, sequence_length=9)


@pytest.fixture(scope="module")
def saved_model(tokenizer, tmp_path_factory):
    module = tf.Module()

    @tf.function(
        input_signature=[tf.TensorSpec((None,), tf.string, name="text")]
    )
    def encode(text):
        token_ids = tokenizer.encode_tensor(text, sequence_length=12)
        return {"token_ids": token_ids.to_tensor(tokenizer.pad_token_id)}

    folder = str(tmp_path_factory.mktemp("saved_model"))
    tf.saved_model.save(module, folder, signatures={"encode": encode})
    return folder


def padded(rows):
    longest = max((len(row) for row in rows), default=0)
    return [row + [0] * (longest - len(row)) for row in rows]


@pytest.mark.parametrize("texts", [[], [""], list(TEXTS.values())])
def test_exported_graph_gives_the_ids_of_encode(tokenizer, saved_model, texts):
    expected = padded(tokenizer.encode(texts, sequence_length=12))
    encode = tf.saved_model.load(saved_model).signatures["encode"]
    found = encode(text=tf.constant(texts, tf.string))["token_ids"]
    assert found.numpy().tolist() == expected
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], saved_model
        )
        signature = meta.signature_def["encode"]
        found = session.run(
            signature.outputs["token_ids"].name,
            {signature.inputs["text"].name: [t.encode() for t in texts]},
        )
    assert found.tolist() == expected


@pytest.mark.slow
def test_language_of_the_machine_changes_no_id(folders, tokenizer):
    texts = ["TWO DOGS I", "İ DIŞ"]
    program = (
        "import sys; from bmt_keras.data.tokenizer import CaptionTokenizer; "
        "tokenizer = CaptionTokenizer.from_checkpoint(sys.argv[1]); "
        "print(tokenizer.encode(sys.argv[2:]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(folders["spiece"]), *texts],
        env={**os.environ, "LC_ALL": "tr_TR.UTF-8", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout) == tokenizer.encode(texts)
