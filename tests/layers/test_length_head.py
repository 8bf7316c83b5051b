import numpy as np
import pytest

from bmt_keras.layers import LengthHead

RNG = np.random.default_rng(6)
GRID = RNG.normal(size=(2, 2, 3, 5)).astype("float32")


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("image", [GRID, GRID[:, 0], GRID[:, 0, 0]])
def test_logits_are_projected_from_the_mean_of_the_cells(image):
    head = LengthHead(max_caption_tokens=9, hidden_dim=7)
    head.build(image.shape)
    cells = image - image.mean(-1, keepdims=True)
    cells = cells / np.sqrt((cells**2).mean(-1, keepdims=True) + 1e-3)
    cells = gelu(cells @ head.dense.kernel.numpy())
    features = cells.reshape(2, -1, 7).mean(1)
    expected = features @ head.logits.kernel.numpy()
    np.testing.assert_allclose(head(image), expected, atol=1e-5)


def test_there_is_a_logit_for_each_length_and_for_none():
    assert LengthHead(max_caption_tokens=9, hidden_dim=7)(GRID).shape == (2, 10)


def test_logits_are_float32_whatever_the_policy():
    assert (
        LengthHead(max_caption_tokens=9, hidden_dim=7, dtype="mixed_float16")(
            GRID
        ).dtype
        == "float32"
    )


def test_dropout_acts_in_training_alone():
    head = LengthHead(max_caption_tokens=9, hidden_dim=7, dropout=0.5)
    kept = head(GRID)
    np.testing.assert_array_equal(head(GRID, training=False), kept)
    assert np.any(head(GRID, training=True) != kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_caption_tokens": 0, "hidden_dim": 7}, "max_caption_tokens=0"),
        ({"max_caption_tokens": 9, "hidden_dim": 0}, "hidden_dim=0"),
        (
            {"max_caption_tokens": 9, "hidden_dim": 7, "dropout": 1.0},
            "dropout=1.0",
        ),
    ],
)
def test_arguments_must_be_in_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        LengthHead(**arguments)
