import numpy as np
import tensorflow as tf

from bmt_keras import contract
from bmt_keras.export.signatures import CaptionerSignatures

TEMPLATES = [
    "a [MASK] square above a [MASK]",
    "[MASK]",
    "[MASK] [MASK] [MASK] red",
    "a red [MASK]",
]
CAPTIONS = [
    "a red square above a blue circle",
    "a circle",
    "a xylophone is red.",
    "red red red red red red",
]


def fill(session, photos, texts):
    return session.run(contract.FILL_MASK, image_bytes=photos, text=texts)


def score(session, photos, texts):
    return session.run(contract.SCORE_CAPTION, image_bytes=photos, text=texts)


# === fill_mask ===


def test_masks_are_filled_as_by_the_library(captioner, session, photos):
    served = fill(session, photos[:4], TEMPLATES)
    assert served[contract.ERROR].tolist() == [b""] * 4
    assert [text.decode() for text in served[contract.TEXT]] == [
        caption.text for caption in captioner.fill_mask(photos[:4], TEMPLATES)
    ]


def test_candidates_are_the_likeliest_tokens(captioner, session, photos):
    served = fill(session, photos[:4], TEMPLATES)
    tokenizer = captioner.tokenizer
    rows = tokenizer.encode(TEMPLATES)
    pixels, _ = captioner.graph.pixel_reader.read_batch(tf.constant(photos[:4]))
    embedding = captioner.graph.embed_pixels(pixels)
    for row, token_ids in enumerate(rows):
        logits = captioner.model.token_logits(
            tf.constant([token_ids]),
            tf.ones((1, len(token_ids)), tf.int32),
            embedding[row : row + 1],
        )
        probabilities = tf.nn.softmax(logits[0]).numpy()
        probabilities[:, tokenizer.special_token_ids] = 0
        masks = np.flatnonzero(np.array(token_ids) == tokenizer.mask_token_id)
        for place, values in enumerate(probabilities[masks]):
            best = np.argsort(-values)[:5]
            np.testing.assert_allclose(
                served[contract.CANDIDATE_PROBABILITIES][row, place],
                values[best],
                atol=1e-4,
            )
            assert served[contract.CANDIDATES][row, place].tolist() == [
                tokenizer.decode([token]).encode() for token in best
            ]
        rest = slice(len(masks), None)
        assert not served[contract.CANDIDATES][row, rest].any()
        assert not served[contract.CANDIDATE_PROBABILITIES][row, rest].any()


def test_bad_rows_are_blank_and_leave_the_others_whole(session, photos):
    served = fill(
        session,
        [photos[0], b"no photo", photos[1], photos[2]],
        ["a [MASK]", "a [MASK]", "no mask here", "[MASK] red"],
    )
    errors = [error.decode() for error in served[contract.ERROR]]
    assert errors[0] == errors[3] == ""
    assert "not a decodable image" in errors[1]
    assert errors[2].startswith("`text`: ")
    good = fill(session, [photos[0], photos[2]], ["a [MASK]", "[MASK] red"])
    for name in (contract.TEXT, contract.CANDIDATES):
        assert (served[name][[0, 3]] == good[name]).all()
        assert not served[name][[1, 2]].any()
    assert not served[contract.CANDIDATE_PROBABILITIES][[1, 2]].any()


# === score_caption ===


def test_scores_are_the_librarys(captioner, session, photos):
    served = score(session, photos[:4], CAPTIONS)
    assert served[contract.ERROR].tolist() == [b""] * 4
    offline = captioner.score(photos[:4], CAPTIONS)
    np.testing.assert_allclose(
        served[contract.SCORE], [s.mean for s in offline], atol=1e-4
    )
    np.testing.assert_allclose(
        served[contract.TOTAL_SCORE], [s.total for s in offline], atol=1e-4
    )


def test_bad_text_leaves_the_other_scores_whole(session, photos):
    texts = [CAPTIONS[0], "", "red " * 40, CAPTIONS[1]]
    served = score(session, photos[:4], texts)
    errors = [error.decode() for error in served[contract.ERROR]]
    assert errors[0] == errors[3] == ""
    assert errors[1].endswith("expected words, found none.")
    assert errors[2].endswith("found 40.")
    good = score(session, [photos[0], photos[3]], [texts[0], texts[3]])
    for name in (contract.SCORE, contract.TOTAL_SCORE):
        np.testing.assert_allclose(served[name][[0, 3]], good[name], atol=1e-4)
        assert not served[name][[1, 2]].any()


def test_full_stops_go_where_training_left_them_out(tiny_captioner, photos):
    graph = tiny_captioner.graph
    graph.settings = graph.settings.replace(drop_final_period=True)
    try:
        traced = CaptionerSignatures(graph).trace()[contract.SCORE_CAPTION]
    finally:
        graph.settings = tiny_captioner.settings
    texts = [f"{CAPTIONS[0]}.", CAPTIONS[0], f"{CAPTIONS[0]} . "]
    scores = traced(
        image_bytes=tf.constant(photos[:1] * 3), text=tf.constant(texts)
    )[contract.SCORE].numpy()
    np.testing.assert_allclose(scores, scores[[1, 1, 1]], atol=1e-6)
