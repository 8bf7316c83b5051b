import numpy as np
import pytest

from bmt_keras.captioner import Captioner
from bmt_keras.captioner.inputs import encode_keywords, encode_templates
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding import GAP
from bmt_keras.errors import InputError


@pytest.fixture
def traces(tiny_captioner):
    """A captioner with no traces yet, and how many it has made."""
    captioner = Captioner(
        tiny_captioner.model,
        tiny_captioner.tokenizer,
        settings=tiny_captioner.settings,
    )
    return captioner, lambda: [
        function.experimental_get_tracing_count()
        for function in captioner._traced.functions.values()
    ]


@pytest.mark.parametrize(
    ("length", "allowed"),
    [
        *((4, {4}), ((2, 3), {2, 3}), (16, {16})),
        *(((15, None), {15, 16}), ((None, 2), {1, 2})),
    ],
)
def test_asked_lengths_are_written(tiny_captioner, paths, length, allowed):
    captions = tiny_captioner.caption(paths[:3], length=length)
    assert {len(caption.tokens) for caption in captions} <= allowed


def test_captions_of_an_image_differ_and_come_best_first(tiny_captioner, paths):
    captioner = Captioner(
        tiny_captioner.model,
        tiny_captioner.tokenizer,
        # Best by their scores alone.
        settings=tiny_captioner.settings.replace(overlap_weight=0),
    )
    greedy = captioner.caption(paths[:2], num_captions=3)
    drawn = captioner.caption(
        paths[:2], num_captions=3, temperature=1.0, top_p=0.9
    )
    for captions in (greedy, drawn):
        assert len(captions) == 2
        for mine in captions:
            assert len({caption.text for caption in mine}) == 3
            scores = [caption.score for caption in mine]
            assert scores == sorted(scores, reverse=True)


def test_seed_decides_on_draws(tiny_captioner, paths):
    first, again, other = (
        tiny_captioner.caption(paths[:3], temperature=2.0, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_minimum_bayes_risk_does_not_depend_on_the_batch(
    tiny_captioner, paths, tmp_path
):
    tiny_captioner.save_to_preset(tmp_path / "captioner")
    captioner = Captioner.from_preset(
        tmp_path / "captioner", mbr_samples=6, rerank_top=3
    )
    together = captioner.caption(paths[:4])
    alone = [captioner.caption(path) for path in paths[:4]]
    assert [each.text for each in together] == [each.text for each in alone]


def test_batches_draw_apart(tiny_captioner, paths):
    captions = tiny_captioner.caption(
        [paths[0]] * 3, temperature=2.0, batch_size=1
    )
    assert len({caption.text for caption in captions}) > 1


def test_every_keyword_is_in_every_caption(tiny_captioner, paths):
    for caption in tiny_captioner.caption(
        paths[:4], keywords=["red square", "above"], length=(3, 6)
    ):
        assert "red square" in caption.text
        assert "above" in caption.text
        assert 3 <= len(caption.tokens) <= 6


def test_more_passes_are_taken_when_asked(tiny_captioner, paths):
    one = tiny_captioner.caption(paths[:1], passes=1, length=12)
    settings = tiny_captioner.caption(paths[:1], length=12)
    same = tiny_captioner.caption(
        paths[:1], passes=tiny_captioner.settings.decoding.passes, length=12
    )
    assert settings == same
    assert one != same


def test_calls_with_other_values_need_no_new_trace(traces, paths):
    captioner, counts = traces
    captioner.caption(paths[:1])
    captioner.caption(paths[:3], passes=2, length=5)
    captioner.caption(paths[:2], length=(2, 9))
    assert counts() == [1]
    for seed in range(2):
        captioner.caption(
            paths[:1], temperature=seed + 1.0, top_p=0.5, seed=seed
        )
    assert counts() == [1, 1]
    captioner.fill_mask(paths[0], ["a [MASK] square", "[MASK]"])
    captioner.fill_mask(paths[0], "[MASK] red", passes=1)
    captioner.score(paths[0], ["a red square", "above"])
    captioner.score(paths[0], "red")
    assert counts() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "`length` must be .* from 1 to 16. Received: length=0"),
        ({"length": 17}, "`length` must be"),
        ({"length": (5, 4)}, r"`length` must be .*length=\(5, 4\)"),
        ({"passes": 0}, "`passes` must be at least 1"),
        ({"temperature": -1}, "`temperature` must be at least 0"),
        ({"top_p": 1.5}, "`top_p` must be above 0 and at most 1"),
        ({"num_captions": 0}, "`num_captions` must be at least 1"),
        (
            {"num_captions": 2, "length": 4},
            "`num_captions` must be at most the number of allowed lengths",
        ),
        ({"keywords": [" "]}, r"keywords\[0\]: expected words, found none"),
        ({"keywords": ["red", "xylophone"]}, r"keywords\[1\]: .* unknown word"),
        (
            {"keywords": ["red square"], "length": 1},
            r"keywords\[0\]: expected at most 1 tokens.*found 2",
        ),
        (
            {"keywords": ["red", "square"], "length": 1},
            "`keywords` must fit into the caption together",
        ),
    ],
)
def test_bad_options_are_refused(tiny_captioner, paths, options, message):
    with pytest.raises(InputError, match=message):
        tiny_captioner.caption(paths[:1], **options)


# === Templates ===


def test_hyphenated_words_stay_whole():
    tokenizer = CaptionTokenizer.from_captions(["a man in a t-shirt"])
    (keyword,) = encode_keywords(["t-shirt"], tokenizer, 9)
    assert tokenizer.decode(keyword) == "t-shirt"
    (template,) = encode_templates(["… in a t-shirt"], tokenizer, 9)
    assert template[0] == GAP
    assert tokenizer.decode(template[1:]) == "in a t-shirt"


def test_masks_are_filled_and_given_words_stay(tiny_captioner, paths):
    captions = tiny_captioner.fill_mask(
        paths[:2], ["A [MASK] square above a [MASK]", "a red [MASK]"]
    )
    first = captions[0].text.split()
    assert [first[i] for i in (0, 2, 3, 4)] == ["a", "square", "above", "a"]
    assert captions[0].token_scores[0] == 0 > captions[0].token_scores[1]
    assert captions[1].text.startswith("a red ")


@pytest.mark.parametrize("gap", ["…", "..."])
def test_a_gap_takes_one_or_more_words(tiny_captioner, paths, gap):
    caption = tiny_captioner.fill_mask(paths[0], f"a red {gap} above a")
    words = caption.text.split()
    assert words[:2] == ["a", "red"]
    assert words[-2:] == ["above", "a"]
    assert len(words) > 4


def test_an_image_goes_with_many_texts_and_a_text_with_many_images(
    tiny_captioner, paths
):
    texts = ["a [MASK]", "[MASK] red"]
    both = tiny_captioner.fill_mask(paths[0], texts)
    assert both == tiny_captioner.fill_mask([paths[0]] * 2, texts)
    assert len(tiny_captioner.fill_mask(paths[:3], texts[0])) == 3
    array = np.zeros((4, 4, 3), np.uint8)
    assert len(tiny_captioner.fill_mask(array, texts)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"texts\[0\]: expected words, found none"),
        ("a red square", r"\[MASK\] or … where .*found neither"),
        ("[MASK] " * 17, "expected at most 16 tokens.*found 17"),
        ("a [MASK] xylophone", "unknown word or a special token"),
        ("a [SEP] [MASK]", r"found \[SEP\]"),
    ],
)
def test_bad_templates_are_refused(tiny_captioner, paths, text, message):
    with pytest.raises(InputError, match=message):
        tiny_captioner.fill_mask(paths[0], text)


def test_counts_of_texts_and_images_must_match(tiny_captioner, paths):
    for call in (tiny_captioner.fill_mask, tiny_captioner.score):
        with pytest.raises(InputError, match="Received: 2 texts, 3 images"):
            call(paths[:3], ["a [MASK]", "[MASK]"])


# === Scores ===


def test_a_score_is_the_sum_over_tokens_masked_in_turn(tiny_captioner, paths):
    texts = ["a red square above a circle", "red"]
    long, short = tiny_captioner.score(paths[:2], texts)
    assert long.total == pytest.approx(sum(long.token_scores), rel=1e-5)
    assert long.mean == pytest.approx(np.mean(long.token_scores), rel=1e-5)
    assert len(long.token_scores) == len(long.tokens) == 6
    assert short.total == short.mean == short.token_scores[0]
    # A mask in the place of a word finds the word with its score.
    filled = tiny_captioner.fill_mask(paths[1], "[MASK]")
    found = tiny_captioner.score(paths[1], filled.text)
    assert found.total == pytest.approx(filled.score, rel=1e-4)


def test_neighbours_and_batches_do_not_change_scores(tiny_captioner, paths):
    texts = ["a red square above a circle", "red", "a green star"]
    together = tiny_captioner.score(paths[:3], texts)
    for path, text, score in zip(paths, texts, together, strict=False):
        alone = tiny_captioner.score(path, text)
        assert alone.total == pytest.approx(score.total, rel=1e-4)
    batched = tiny_captioner.score(paths[:3], texts, batch_size=2)
    assert [s.total for s in batched] == pytest.approx(
        [s.total for s in together], rel=1e-4
    )


def test_rank_brings_the_likeliest_text_first(tiny_captioner, paths):
    texts = ["a red square above a circle", "red", "above above"]
    scores = tiny_captioner.score(paths[0], texts)
    ranked = tiny_captioner.rank(paths[0], texts)
    assert [s.text for s in ranked] == [
        s.text for s in sorted(scores, key=lambda s: -s.mean)
    ]
    both = tiny_captioner.rank(paths[:2], texts)
    assert both == [ranked, tiny_captioner.rank(paths[1], texts)]
    assert tiny_captioner.rank(paths[0], []) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", r"texts\[0\]: expected words, found none"),
        ("red " * 17, "expected at most 16 tokens.*found 17"),
        ("a [MASK]", "special token"),
    ],
)
def test_bad_captions_are_not_scored(tiny_captioner, paths, text, message):
    with pytest.raises(InputError, match=message):
        tiny_captioner.score(paths[0], text)


def test_frozen_tower_captioner_takes_all_controls(
    frozen_tower_captioner, paths
):
    captioner = frozen_tower_captioner
    caption = captioner.caption(paths[0], keywords=["red"], length=4)
    assert "red" in caption.text.split()
    filled = captioner.fill_mask(paths[0], "a red …")
    assert filled.text.startswith("a red ")
    assert captioner.rank(paths[0], ["red"])[0].total < 0
