import keras
import numpy as np

from bmt_keras.layers import CrossAttentionBlock, tanh_gelu

RNG = np.random.default_rng(8)
STATES = RNG.normal(size=(2, 5, 4)).astype("float32")
CELLS = RNG.normal(size=(2, 3, 4)).astype("float32")
PADDING_MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
GATES = ("self_attention_gate", "cross_attention_gate", "feed_forward_gate")


def new_block(*, num_heads=1, **kwargs):
    block = CrossAttentionBlock(
        num_heads=num_heads, intermediate_dim=6, **kwargs
    )
    block.build(STATES.shape, CELLS.shape)
    return block


def make_block(*, seed=0, **kwargs):
    """Builds a block of one head whose gates and weights are all drawn."""
    block = new_block(**kwargs)
    rng = np.random.default_rng(seed)
    for variable in block.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return block


def normalise(x, norm):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * norm.gamma.numpy() + norm.beta.numpy()


def project(x, dense):
    kernel = dense.kernel.numpy().reshape(4, 4)
    return x @ kernel


def attend(queries, keys, attention):
    scores = project(queries, attention.query_dense)
    scores = scores @ project(keys, attention.key_dense).swapaxes(1, 2)
    scores = np.exp(scores / 2)  # the square root of the width 4
    scores = scores / scores.sum(-1, keepdims=True)
    context = scores @ project(keys, attention.value_dense)
    return project(context, attention.output_dense)


def feed_forward(x, block):
    x = x @ block.expand.kernel.numpy() + block.expand.bias.numpy()
    x = np.array(tanh_gelu(x))
    return x @ block.contract.kernel.numpy() + block.contract.bias.numpy()


def test_output_is_that_of_the_formula():
    block, x = make_block(), STATES
    gates = [np.tanh(8 * getattr(block, name).numpy()) for name in GATES]
    normal = normalise(x, block.self_attention_norm)
    x = x + gates[0] * block.self_attention(normal, PADDING_MASK).numpy()
    normal = normalise(x, block.cross_attention_norm)
    x = x + gates[1] * attend(normal, CELLS, block.cross_attention)
    x = x + gates[2] * feed_forward(
        normalise(x, block.feed_forward_norm), block
    )
    np.testing.assert_allclose(block(STATES, CELLS, PADDING_MASK), x, atol=1e-4)


def test_padding_mask_replaces_the_mask_of_the_states():
    block = make_block()
    states = keras.layers.Masking()(STATES * PADDING_MASK[..., None])
    all_tokens = np.ones_like(PADDING_MASK)
    np.testing.assert_allclose(
        block(states, CELLS, all_tokens),
        block(np.array(states), CELLS, all_tokens),
        atol=1e-6,
    )


def test_caption_of_padding_alone_stays_finite():
    fused = make_block()(STATES, CELLS, np.zeros_like(PADDING_MASK))
    assert np.isfinite(fused).all()


def test_captions_of_an_image_share_its_cells():
    block = make_block()
    states = RNG.normal(size=(6, 5, 4)).astype("float32")
    mask = np.array([[1, 1, 1, 0, 0]] * 3 + [[1, 1, 1, 1, 1]] * 3)
    repeated = np.repeat(CELLS, 3, axis=0)
    np.testing.assert_allclose(
        block(states, CELLS, mask), block(states, repeated, mask), atol=1e-5
    )
    fused = np.array(block(states, CELLS, mask))
    other = np.array(block(states, CELLS[::-1], mask))
    assert np.abs(fused - other).min(axis=(1, 2)).max() > 0


def test_gates_start_where_they_are_told():
    block = new_block(gate_initializer=keras.initializers.Constant(0.25))
    assert [float(getattr(block, name)) for name in GATES] == [0.25] * 3


def test_without_gates_each_part_is_added_whole():
    gated = make_block(gate_initializer=keras.initializers.Constant(1.0))
    block = new_block(gate_initializer=None)
    weights = [w for w in gated.weights if not w.path.endswith("_gate")]
    for variable, weight in zip(block.weights, weights, strict=True):
        variable.assign(weight)
    for name in GATES:
        getattr(gated, name).assign(10)  # its tanh rounds to 1
        assert getattr(block, name) is None
    np.testing.assert_allclose(
        block(STATES, CELLS, PADDING_MASK),
        gated(STATES, CELLS, PADDING_MASK),
        atol=1e-6,
    )
    again = CrossAttentionBlock.from_config(block.get_config())
    assert again.gate_initializer is None
