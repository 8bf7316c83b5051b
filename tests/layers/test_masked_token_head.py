import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.layers import MaskedTokenHead, tanh_gelu
from bmt_keras.layers.masked_token_head import take_positions

VOCABULARY, WIDTH, HIDDEN = 11, 4, 6
RNG = np.random.default_rng(5)
# Of a variance of 1e-8, where a greater epsilon than 1e-12 shows.
STATES = (RNG.normal(size=(2, 5, HIDDEN)) * 1e-4).astype("float32")
POSITIONS = np.array([[0, 3, 4], [2, 2, 0]])


def make_embedding(**kwargs):
    return keras.layers.ReversibleEmbedding(
        VOCABULARY, WIDTH, embeddings_initializer="random_normal", **kwargs
    )


def make_head(*, use_dense=True, **kwargs):
    """Builds a head whose weights are all drawn."""
    keras.utils.set_random_seed(1)
    head = MaskedTokenHead(make_embedding(), use_dense=use_dense, **kwargs)
    head.build((None, None, HIDDEN if use_dense else WIDTH))
    head.set_weights([RNG.normal(size=w.shape) for w in head.get_weights()])
    return head


def normalise(x, norm):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
    return x * norm.gamma.numpy() + norm.beta.numpy()


def test_logits_are_those_of_alberts_head():
    head = make_head()
    head.dense.bias.assign(np.zeros(WIDTH))
    x = tanh_gelu(STATES @ head.dense.kernel.numpy())
    x = normalise(np.array(x), head.layer_norm)
    embeddings = head.token_embedding.embeddings.numpy()
    expected = x @ embeddings.T + head.bias.numpy()
    np.testing.assert_allclose(head(STATES), expected, atol=1e-3)


def test_projected_states_need_no_dense_layer():
    head = make_head(use_dense=False)
    states = STATES[..., :WIDTH]
    x = normalise(np.array(tanh_gelu(states)), head.layer_norm)
    embeddings = head.token_embedding.embeddings.numpy()
    expected = x @ embeddings.T + head.bias.numpy()
    np.testing.assert_allclose(head(states), expected, atol=1e-3)
    assert not hasattr(head, "dense")


def test_only_the_masked_positions_are_predicted():
    head = make_head()
    everywhere = head(STATES).numpy()
    expected = everywhere[np.arange(2)[:, None], POSITIONS]
    assert expected.shape == (2, 3, VOCABULARY)
    np.testing.assert_allclose(head(STATES, POSITIONS), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_logits_are_float32_whatever_the_policy(dtype):
    head = make_head(dtype=dtype)
    # Neither dtype knows a number between 1024 and 1024.1.
    head.bias.assign(np.full(VOCABULARY, 1024.1))
    head.token_embedding.embeddings.assign(np.zeros((VOCABULARY, WIDTH)))
    logits = head(STATES, POSITIONS)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, 1024.1, 1e-6)


def make_tied_model():
    token_ids = keras.Input((None,), dtype="int32")
    positions = keras.Input((None,), dtype="int32")
    embedding = make_embedding(name="token_embedding")
    states = keras.layers.Dense(HIDDEN, name="body")(embedding(token_ids))
    logits = MaskedTokenHead(embedding)(states, positions)
    return keras.Model([token_ids, positions], logits)


def test_embedding_stays_tied_in_a_loaded_model(tmp_path):
    model = make_tied_model()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    head = loaded.layers[-1]
    assert head.token_embedding is loaded.get_layer("token_embedding")
    assert len(loaded.weights) == len(model.weights)
    inputs = [np.array([[3, 4, 5]]), np.array([[0, 2]])]
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)


def test_head_carries_the_mask_of_the_states_where_all_are_predicted():
    token_ids = np.array([[3, 4, 0], [5, 0, 0]])
    states = keras.layers.Embedding(6, WIDTH, mask_zero=True)(token_ids)
    head = MaskedTokenHead(make_embedding(), intermediate_activation="linear")
    np.testing.assert_array_equal(head(states)._keras_mask, token_ids != 0)
    np.testing.assert_array_equal(states._keras_mask, token_ids != 0)
    gathered = head(states, POSITIONS[:, :1])
    assert getattr(gathered, "_keras_mask", None) is None


def test_mask_is_symbolic_in_a_functional_model():
    token_ids = keras.Input((None,), dtype="int32")
    states = keras.layers.Embedding(6, WIDTH, mask_zero=True)(token_ids)
    head = MaskedTokenHead(make_embedding())
    assert head(states)._keras_mask is not None
    positions = keras.Input((None,), dtype="int32")
    assert getattr(head(states, positions), "_keras_mask", None) is None


@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_softmax_gives_the_probabilities_of_the_logits(positions):
    head = make_head(dtype="mixed_float16")
    logits = np.array(head(STATES, positions), "float64")
    head.activation = keras.activations.softmax
    expected = np.exp(logits - logits.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    found = head(STATES, positions).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    config = MaskedTokenHead(make_embedding(), activation="softmax")
    assert config.get_config()["activation"] == "softmax"


def test_width_of_projected_states_must_be_the_embeddings():
    with pytest.raises(ValueError, match=r"must be as wide as.*output_dim=4"):
        MaskedTokenHead(make_embedding(), use_dense=False)(STATES)


def test_token_embedding_must_be_reversible():
    with pytest.raises(TypeError, match="must be a `keras"):
        MaskedTokenHead(keras.layers.Embedding(VOCABULARY, WIDTH))


# === Positions ===

X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")


def test_vectors_of_each_row_s_positions_are_taken():
    positions = np.array([[4, 0], [1, 1], [2, 3]])
    expected = np.take_along_axis(X, positions[..., None], axis=1)
    np.testing.assert_array_equal(take_positions(X, positions), expected)


def test_gradient_adds_up_where_a_position_comes_twice():
    x = tf.Variable(X)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(take_positions(x, [[1, 1], [0, 4], [3, 2]]))
    gradient = tf.convert_to_tensor(tape.gradient(total, x)).numpy()
    expected = np.zeros_like(X)
    expected[0, 1] = 2
    expected[[1, 1, 2, 2], [0, 4, 3, 2]] = 1
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("position", [-1, 5])
def test_position_outside_of_its_row_is_not_another_row_s(position):
    with tf.device("CPU"), pytest.raises(tf.errors.InvalidArgumentError):
        take_positions(X, [[0], [position], [0]])
