import numpy as np

from bmt_keras.layers import RelativeSelfAttention

RNG = np.random.default_rng(3)
STATES = RNG.normal(size=(2, 5, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def make_attention(num_heads=2, max_distance=2):
    layer = RelativeSelfAttention(
        num_heads=num_heads, max_distance=max_distance
    )
    layer.build(STATES.shape)
    rng = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return layer


def attend_by_hand(layer, states, mask):
    x = states @ layer.projection.kernel.numpy()
    x = x + layer.projection.bias.numpy()
    queries, keys, values = np.split(x, 3, axis=-1)
    table, output = layer.distance_bias.numpy(), np.zeros_like(states)
    for head, part in enumerate((slice(0, 2), slice(2, 4))):
        for row in range(len(states)):
            for place in range(states.shape[1]):
                weights = []
                for other in range(states.shape[1]):
                    distance = int(np.clip(other - place, -2, 2))
                    logit = queries[row, place, part] @ keys[row, other, part]
                    logit = logit / np.sqrt(2) + table[distance + 2, head]
                    weights.append(np.exp(logit) * mask[row, other])
                weights = np.array(weights) / np.sum(weights)
                output[row, place, part] = weights @ values[row][:, part]
    kernel = layer.output_dense.kernel.numpy()
    return output @ kernel + layer.output_dense.bias.numpy()


def test_output_is_that_of_the_formula():
    layer = make_attention()
    np.testing.assert_allclose(
        layer(STATES, MASK), attend_by_hand(layer, STATES, MASK), atol=1e-5
    )


def test_fresh_heads_look_at_the_neighbours():
    layer = RelativeSelfAttention(num_heads=4, max_distance=3)
    layer.build((None, None, 8))
    favourites = layer.distance_bias.numpy().argmax(axis=0) - 3
    assert favourites[:3].tolist() == [-1, 1, -2]
    assert not layer.distance_bias.numpy()[:, 3].any()
