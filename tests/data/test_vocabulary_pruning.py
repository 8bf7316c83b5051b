import pytest
from sentencepiece import sentencepiece_model_pb2

from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.data.vocabulary_pruning import prune_vocabulary

CAPTIONS = ["a red dog-sled", "two red dogs"]


WORDS = ["a", "red", "dog", "sled", "two", "blue", "circle", "bird"]


@pytest.fixture(scope="module")
def whole():
    """A unigram model of letters, which are unlikely, words, and an `s`."""
    model = sentencepiece_model_pb2.ModelProto()
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece

    def add(pieces, score, kind=kinds.NORMAL):
        for piece in pieces:
            model.pieces.add(piece=piece, score=score, type=kind)

    add(["<pad>", "[CLS]", "[SEP]", "[MASK]"], 0.0, kinds.CONTROL)
    add(["<unk>"], 0.0, kinds.UNKNOWN)
    add(["-"], 0.0, kinds.USER_DEFINED)
    add(["▁"], -8.0)
    add(sorted({letter for word in WORDS for letter in word}), -8.0)
    add([f"▁{word}" for word in WORDS if len(word) > 1], -2.0)
    add(["▁a"], -1.0)
    model.trainer_spec.unk_id = 4
    model.trainer_spec.bos_id = model.trainer_spec.eos_id = -1
    return CaptionTokenizer(model.SerializeToString())


@pytest.fixture(scope="module")
def pruned(whole):
    return prune_vocabulary(whole, CAPTIONS)


def pieces(tokenizer, text):
    (ids,) = tokenizer.encode([text])
    return [tokenizer.vocabulary[i] for i in ids]


def test_captions_are_split_as_before(whole, pruned):
    for caption in CAPTIONS:
        assert pieces(pruned, caption) == pieces(whole, caption)


def test_unused_pieces_go_and_the_order_stays(whole, pruned):
    assert pruned.vocabulary_size < whole.vocabulary_size
    kept = set(pruned.vocabulary)
    assert pruned.vocabulary == [p for p in whole.vocabulary if p in kept]
    gone = set(whole.vocabulary) - kept
    assert all(len(piece.strip("▁")) > 1 for piece in gone)


def test_special_tokens_and_added_ones_stay(whole, pruned):
    assert pruned.special_token_ids == whole.special_token_ids
    assert "-" in pruned.vocabulary


def test_other_words_are_spelt(whole, pruned):
    text = "blue circle"
    assert pruned.unknown_token_id not in pruned.encode([text])[0]
    assert pruned.decode(pruned.encode([text])[0]) == text
    assert len(pieces(pruned, text)) > len(pieces(whole, text))


def test_pruned_tokenizer_reads_back(pruned, tmp_path):
    pruned.save(tmp_path / "spiece.model")
    again = CaptionTokenizer.from_file(tmp_path / "spiece.model")
    assert again.encode(CAPTIONS) == pruned.encode(CAPTIONS)


def test_rare_pieces_go_and_their_words_are_spelt(whole):
    captions = ["a red dog", "a red dog", "a red bird"]
    pruned = prune_vocabulary(whole, captions, min_count=2)
    assert "▁red" in pruned.vocabulary
    assert "▁bird" not in pruned.vocabulary
    assert pieces(pruned, "a red dog") == pieces(whole, "a red dog")
    assert pieces(pruned, "bird")[1:-1] == ["▁", *"bird"]
