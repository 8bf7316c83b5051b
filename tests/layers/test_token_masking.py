import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.layers import TokenMasking

PAD, UNKNOWN, START, END, MASK = range(5)
SPECIAL = [PAD, UNKNOWN, START, END]
CAPTIONS = np.array(
    [
        [START, 17, 9, 25, 31, 11, END, PAD],
        [START, 12, END, PAD, PAD, PAD, PAD, PAD],
        [START, END, PAD, PAD, PAD, PAD, PAD, PAD],
        [START, 8, 7, 6, 5, 18, 19, END],
    ]
)


def repeat(row, count=4000):
    return np.repeat(CAPTIONS[row : row + 1], count, axis=0)


def run(masking, token_ids, *arguments, **kwargs):
    outputs = masking(token_ids, *arguments, **kwargs)
    return {name: value.numpy() for name, value in outputs.items()}


def test_rate_of_one_masks_all_but_special_tokens_and_padding():
    masked = run(TokenMasking(MASK, SPECIAL, rate=1.0), CAPTIONS[:3])
    np.testing.assert_array_equal(
        masked["token_ids"],
        [
            [START, MASK, MASK, MASK, MASK, MASK, END, PAD],
            [START, MASK, END, PAD, PAD, PAD, PAD, PAD],
            [START, END, PAD, PAD, PAD, PAD, PAD, PAD],
        ],
    )
    np.testing.assert_array_equal(
        masked["mask_positions"],
        [[1, 2, 3, 4, 5, 0, 0, 0], [1] + [0] * 7, [0] * 8],
    )
    np.testing.assert_array_equal(
        masked["labels"],
        [[17, 9, 25, 31, 11, 0, 0, 0], [12] + [0] * 7, [0] * 8],
    )
    np.testing.assert_array_equal(
        masked["sample_weight"], [[1] * 5 + [0] * 3, [1] + [0] * 7, [0] * 8]
    )
    dtypes = {name: value.dtype.name for name, value in masked.items()}
    assert dtypes.pop("sample_weight") == "float32"
    assert set(dtypes.values()) == {"int32"}


@pytest.mark.parametrize("rate", [None, 0.15, 0.5])
def test_labels_at_their_positions_restore_the_caption(rate):
    masking = TokenMasking(MASK, SPECIAL, rate=rate, seed=3)
    token_ids = np.repeat(CAPTIONS, 50, axis=0)
    masked = run(masking, token_ids)
    restored = masked["token_ids"].copy()
    for row, positions, labels, weight in zip(
        restored,
        masked["mask_positions"],
        masked["labels"],
        masked["sample_weight"] == 1,
        strict=True,
    ):
        assert (row[positions[weight]] == MASK).all()
        assert (np.diff(positions[weight]) > 0).all()
        row[positions[weight]] = labels[weight]
    np.testing.assert_array_equal(restored, token_ids)
    # One at least, where there is a token to mask.
    counts = masked["sample_weight"].sum(1).reshape(4, 50)
    assert (counts[[0, 1, 3]] >= 1).all()
    assert (counts[2] == 0).all()


def test_padding_mask_spares_what_its_ids_do_not_tell():
    padding_mask = np.array([[1, 1, 1, 0, 0, 0, 0, 0]])
    masking = TokenMasking(MASK, SPECIAL, rate=1.0)
    masked = run(masking, CAPTIONS[3:], padding_mask)
    expected = [[START, MASK, MASK, 6, 5, 18, 19, END]]
    np.testing.assert_array_equal(masked["token_ids"], expected)


def test_mask_of_the_token_ids_serves_as_padding_mask():
    token_ids = tf.constant(CAPTIONS[3:])
    token_ids._keras_mask = tf.constant([[True] * 3 + [False] * 5])
    masked = TokenMasking(MASK, SPECIAL, rate=1.0)(token_ids)
    expected = [[START, MASK, MASK, 6, 5, 18, 19, END]]
    np.testing.assert_array_equal(masked["token_ids"], expected)
    assert masked["token_ids"]._keras_mask is not None
    assert getattr(masked["labels"], "_keras_mask", None) is None


def test_share_of_a_fixed_rate_is_exact_on_average():
    masked = run(TokenMasking(MASK, SPECIAL, rate=0.5, seed=1), repeat(0))
    counts = masked["sample_weight"].sum(1)
    # Half of 5 tokens
    assert set(counts) == {2, 3}
    np.testing.assert_allclose(counts.mean(), 2.5, atol=0.04)
    # Each token as often as any other
    share = (masked["token_ids"] == MASK).mean(0)
    np.testing.assert_allclose(share, [0, *[0.5] * 5, 0, 0], atol=0.03)


def test_free_rate_masks_any_number_of_tokens_alike_often():
    masked = run(TokenMasking(MASK, SPECIAL, seed=1), repeat(0))
    counts = np.bincount(masked["sample_weight"].sum(1).astype(int))
    np.testing.assert_allclose(counts / 4000, [0] + [0.2] * 5, atol=0.03)


def test_capacity_holds_the_masks_of_any_length():
    eager = TokenMasking(MASK, SPECIAL, rate=0.29)
    masking = TokenMasking(MASK, SPECIAL, rate=0.29)
    compiled = tf.function(
        masking, input_signature=[tf.TensorSpec((None, None), "int32")]
    )
    # 0.29 * 100 is 28.999999999999996 in float64.
    for length, capacity in [(1, 1), (4, 2), (10, 3), (100, 29)]:
        token_ids = np.full((2, length), 9, "int32")
        assert eager(token_ids)["labels"].shape == (2, capacity)
        assert compiled(token_ids)["labels"].shape == (2, capacity)
        symbolic = eager(keras.KerasTensor((2, length), "int32"))
        assert symbolic["labels"].shape == (2, capacity)
    assert TokenMasking(MASK, SPECIAL)(token_ids)["labels"].shape == (2, 100)


def test_masked_tokens_show_masks_random_tokens_and_themselves():
    masking = TokenMasking(
        MASK,
        SPECIAL,
        rate=1.0,
        vocabulary_size=12,
        mask_share=0.6,
        random_share=0.3,
        seed=1,
    )
    token_ids = np.full((2000, 5), 9)
    masked = run(masking, token_ids)
    shares = np.bincount(masked["token_ids"].ravel(), minlength=12) / 10000
    each = 0.3 / 7  # of the ids 5 to 11
    expected = [0, 0, 0, 0, 0.6, each, each, each, each, each + 0.1, each, each]
    np.testing.assert_allclose(shares, expected, atol=0.02)
    assert (masked["labels"] == 9).all()


def test_training_draws_anew_and_repeats_with_its_seed():
    first, second = (TokenMasking(MASK, SPECIAL, seed=5) for _ in range(2))
    draws = [first(repeat(0, 20))["token_ids"].numpy() for _ in range(2)]
    assert np.any(draws[0] != draws[1])
    again = [second(repeat(0, 20))["token_ids"].numpy() for _ in range(2)]
    np.testing.assert_array_equal(draws, again)


@pytest.mark.parametrize("rate", [None, 0.5])
def test_evaluation_draws_the_same_masks_at_every_call(rate):
    shares = {"mask_share": 0.5, "random_share": 0.3, "vocabulary_size": 40}
    masked = [
        run(
            TokenMasking(MASK, SPECIAL, rate=rate, seed=seed, **shares),
            repeat(0, 20),
            training=False,
        )
        for seed in (1, 1, 2)
    ]
    for name in masked[0]:
        np.testing.assert_array_equal(masked[0][name], masked[1][name])
        np.testing.assert_array_equal(masked[0][name], masked[2][name])
    # Yet the captions of a batch are masked each in its own way.
    assert len(np.unique(masked[0]["token_ids"], axis=0)) > 5


def test_model_passes_on_whether_it_trains():
    token_ids = keras.Input((None,), dtype="int32")
    model = keras.Model(token_ids, TokenMasking(MASK, SPECIAL)(token_ids))
    batch = repeat(0, 20)
    evaluated = [model(batch, training=False)["token_ids"] for _ in range(2)]
    np.testing.assert_array_equal(*evaluated)
    trained = [model(batch, training=True)["token_ids"] for _ in range(2)]
    assert np.any(trained[0] != trained[1])


def test_masking_does_not_set_later_layers_training():
    token_ids = keras.Input((8,), dtype="int32")
    masked = TokenMasking(MASK, SPECIAL, rate=1.0)(token_ids)
    outputs = keras.layers.Dropout(0.5)(masked["sample_weight"])
    model = keras.Model(token_ids, outputs)
    np.testing.assert_array_equal(model(CAPTIONS[:1])[0, :5], [1] * 5)


def test_it_masks_inside_a_data_pipeline():
    masking = TokenMasking(MASK, SPECIAL, seed=1)
    dataset = tf.data.Dataset.from_tensor_slices(repeat(0, 40)).batch(20)
    one, two = (x["token_ids"].numpy() for x in dataset.map(masking))
    assert np.any(one == MASK)
    assert np.any(one != two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, r"`rate` must be in \(0, 1\]"),
        ({"rate": 1.1}, r"`rate` must be in \(0, 1\]"),
        ({"mask_share": -0.1}, "mask_share=-0.1"),
        ({"mask_share": 0.8, "random_share": 0.3}, "random_share=0.3"),
        ({"mask_share": 0.8, "random_share": 0.1}, "vocabulary_size=None"),
        (
            {"mask_share": 0, "random_share": 1, "vocabulary_size": 5},
            "vocabulary_size=5",
        ),
        ({"vocabulary_size": 4}, "must be in"),
        ({"special_token_ids": [-1]}, "must be in"),
    ],
)
def test_arguments_must_be_in_range(arguments, message):
    arguments = {"special_token_ids": SPECIAL, **arguments}
    with pytest.raises(ValueError, match=message):
        TokenMasking(MASK, **arguments)


def test_token_ids_must_be_integers():
    with pytest.raises(TypeError, match=r"must be integers.*float32"):
        TokenMasking(MASK, SPECIAL)(CAPTIONS.astype("float32"))
    with pytest.raises(TypeError, match="must be integers"):
        TokenMasking(MASK, SPECIAL)(keras.Input((8,)))


@pytest.mark.parametrize("training", [True, False])
def test_share_of_a_batch_is_masked_as_it_would_be_there(training):
    token_ids = np.repeat(CAPTIONS, 3, axis=0)
    whole, share = (
        TokenMasking(
            MASK,
            SPECIAL,
            vocabulary_size=40,
            mask_share=0.5,
            random_share=0.3,
            seed=3,
        )
        for _ in range(2)
    )
    rows = np.array([7, 2, 11])
    for _ in range(2):
        expected = run(whole, token_ids, training=training)
        noise = share.draw_noise(token_ids.shape, training=training)
        noise = {name: drawn.numpy()[rows] for name, drawn in noise.items()}
        found = share.mask_tokens(token_ids[rows], noise)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name][rows])
