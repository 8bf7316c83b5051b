import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.captioner.inputs import encode_captions, encode_templates
from bmt_keras.data.captions import drop_final_period
from bmt_keras.errors import InputError
from bmt_keras.export.guards import TextEncoder

MAX_TOKENS = 16
CAPTIONS = [
    "a red square above a blue circle",
    "A RED square, above!",
    "a xylophone",
    "red",
]
PERIODS = [
    "a red square.",
    "a red square .  ",
    "a red square..",
    "a red square...",
    "a red square. .",
    ".",
    " . ",
    "..",
    ".. .",
    "red\u3000.\u2003",
    "a. red",
    "a red\u00e9.",
    "r.",
    "a\n.",
]


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return TextEncoder(tokenizer, max_caption_tokens=MAX_TOKENS)


def encode(encoder, texts, **options):
    token_ids, errors = encoder.encode_captions(
        tf.constant(texts), **{"drop_final_period": False, **options}
    )
    return token_ids.numpy(), [error.decode() for error in errors.numpy()]


def test_captions_are_the_librarys(encoder, tokenizer):
    found, errors = encode(encoder, CAPTIONS)
    assert errors == [""] * len(CAPTIONS)
    expected = encode_captions(CAPTIONS, tokenizer, max_tokens=MAX_TOKENS)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("text", PERIODS)
def test_full_stops_go_as_in_the_library(encoder, tokenizer, text):
    found, _ = encode(encoder, [text], drop_final_period=True)
    (expected,) = tokenizer.encode([drop_final_period(text)])
    assert found[0].tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected words, found none."),
        (" \n", "expected words, found none."),
        ("red " * 17, "expected at most 16 tokens, the longest caption, found"),
        ("a [MASK] square", "found an unknown word or a special token."),
        ("a [SEP] square", "found an unknown word or a special token."),
    ],
)
def test_bad_caption_has_the_librarys_complaint(
    encoder, tokenizer, text, message
):
    found, errors = encode(encoder, [CAPTIONS[0], text, CAPTIONS[3]])
    assert errors[0] == errors[2] == ""
    assert errors[1].startswith("`text`: ")
    assert message in errors[1]
    with pytest.raises(InputError, match=message.replace("[", "\\[")):
        encode_captions([text], tokenizer, max_tokens=MAX_TOKENS)
    # The others are as wide as without it, and it stands in for a caption.
    expected, _ = encode(encoder, [CAPTIONS[0], CAPTIONS[3]])
    np.testing.assert_array_equal(found[[0, 2]], expected)
    assert found[1, :3].tolist() == [
        *(
            tokenizer.cls_token_id,
            tokenizer.unknown_token_id,
            tokenizer.sep_token_id,
        )
    ]
    assert (found[1, 3:] == tokenizer.pad_token_id).all()


def test_templates_are_the_librarys(encoder, tokenizer):
    texts = ["a [MASK] square", "[MASK]", "red[MASK][MASK] circle"]
    token_ids, errors = encoder.encode_templates(tf.constant(texts))
    assert not any(errors.numpy())
    found = token_ids.numpy()[:, 1:-1]
    found[found == tokenizer.sep_token_id] = tokenizer.pad_token_id
    expected = encode_templates(texts, tokenizer, max_tokens=MAX_TOKENS)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected words, found none."),
        ("a red square", "expected [MASK] where words are missing"),
        ("[MASK] " * 17, "expected at most 16 tokens, the longest"),
        ("a [MASK] xylophone", "found an unknown word or a special token."),
        ("a [SEP] [MASK]", "found an unknown word or a special token."),
        ("a [MASK] \u2026", "found a gap"),
        ("a ... [MASK]", "found a gap"),
    ],
)
def test_bad_template_has_a_complaint(encoder, tokenizer, text, message):
    token_ids, errors = encoder.encode_templates(tf.constant(["[MASK]", text]))
    assert errors.numpy()[0] == b""
    assert message in errors.numpy()[1].decode()
    frame = [
        tokenizer.cls_token_id,
        tokenizer.mask_token_id,
        tokenizer.sep_token_id,
    ]
    assert token_ids.numpy().tolist() == [frame, frame]


def test_texts_that_are_no_utf8_do_no_harm(encoder):
    _, errors = encode(encoder, [b"\xff\xfe.", b"red"], drop_final_period=True)
    assert errors == ["", ""]
