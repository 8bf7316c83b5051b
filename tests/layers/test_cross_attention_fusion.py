import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.layers import CrossAttentionFusion

RNG = np.random.default_rng(9)
STATES = RNG.normal(size=(2, 5, 4)).astype("float32")
GRID = RNG.normal(size=(2, 2, 3, 6)).astype("float32")
PADDING_MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])


def make_fusion(*, image=GRID, opened=True, **kwargs):
    """Builds a fusion of two blocks, with its gates drawn where opened."""
    keras.utils.set_random_seed(2)
    options = {"num_layers": 2, "num_heads": 2, "intermediate_dim": 8}
    fusion = CrossAttentionFusion(**{**options, **kwargs})
    fusion.build(STATES.shape, image.shape)
    for variable in fusion.trainable_variables if opened else []:
        variable.assign(RNG.normal(0, 0.5, variable.shape))
    return fusion


@pytest.mark.parametrize(
    "dtype", ["float32", "mixed_float16", "mixed_bfloat16"]
)
def test_fresh_layer_passes_the_token_states_through_exactly(dtype):
    fusion = make_fusion(opened=False, dtype=dtype)
    states = tf.cast(STATES, fusion.compute_dtype)
    fused = fusion(states, GRID, PADDING_MASK, training=True)
    assert tf.reduce_all(fused == states)


def test_gates_are_all_that_a_fresh_layer_trains_at_first():
    fusion = make_fusion(opened=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fusion(STATES, GRID) ** 2)
    weights = fusion.trainable_variables
    for weight, gradient in zip(
        weights, tape.gradient(loss, [w.value for w in weights]), strict=True
    ):
        is_gate = weight.path.endswith("_gate")
        # That of a looked-up table comes as slices.
        gradient = np.array(tf.convert_to_tensor(gradient))
        assert np.any(gradient != 0) == is_gate, weight.path


def test_tokens_do_not_depend_on_what_stands_at_padding():
    fusion = make_fusion()
    padded = PADDING_MASK[..., None] == 0
    other = np.where(padded, np.float32(100) * STATES + 7, STATES)
    one = fusion(STATES, GRID, PADDING_MASK)
    two = fusion(other, GRID, PADDING_MASK)
    tokens = PADDING_MASK == 1
    np.testing.assert_array_equal(one[tokens], two[tokens])
    # The comparison can fail: without a mask the tokens do depend on it.
    unmasked = fusion(other, GRID)
    assert np.abs(unmasked[tokens] - one[tokens]).max() > 0.01


def test_tokens_do_not_depend_on_how_much_padding_there_is():
    fusion = make_fusion()
    longer = np.pad(STATES, ((0, 0), (0, 4), (0, 0)), constant_values=3)
    longer_mask = np.pad(PADDING_MASK, ((0, 0), (0, 4)))
    np.testing.assert_allclose(
        fusion(longer, GRID, longer_mask)[:, :3],
        fusion(STATES, GRID, PADDING_MASK)[:, :3],
        atol=1e-5,
    )


def test_padding_mask_may_have_any_dtype():
    fusion = make_fusion()
    expected = fusion(STATES, GRID, PADDING_MASK)
    for dtype in ("int32", "bool", "float32"):
        fused = fusion(STATES, GRID, PADDING_MASK.astype(dtype))
        np.testing.assert_array_equal(fused, expected)


def test_mask_of_the_states_serves_without_a_padding_mask():
    fusion = make_fusion()
    states = keras.layers.Masking()(STATES * PADDING_MASK[..., None])
    fused = fusion(states, GRID)
    np.testing.assert_allclose(
        fused, fusion(np.array(states), GRID, PADDING_MASK), atol=1e-6
    )
    np.testing.assert_array_equal(fused._keras_mask, PADDING_MASK == 1)


def test_tokens_read_the_image_and_where_its_cells_are():
    fusion = make_fusion()
    fused = fusion(STATES, GRID)
    assert np.abs(fusion(STATES, GRID[::-1]) - fused).max() > 0.01
    # The same cells in another order
    assert np.abs(fusion(STATES, GRID[:, ::-1]) - fused).max() > 0.01


def test_grid_equals_its_cells_in_a_row():
    fusion = make_fusion()
    np.testing.assert_array_equal(
        fusion(STATES, GRID.reshape(2, 6, 6)), fusion(STATES, GRID)
    )


def test_vector_is_an_image_of_one_cell():
    vector = GRID[:, 0, 0]
    fusion = make_fusion(image=vector)
    for keys, values in fusion.project_image(vector):
        assert keys.shape == values.shape == (2, 1, 2, 2)
    np.testing.assert_array_equal(
        fusion(STATES, vector), fusion(STATES, vector[:, None])
    )


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_image_may_be_projected_once_for_many_passes(dtype):
    fusion = make_fusion(dtype=dtype)
    projected = fusion.project_image(GRID)
    assert len(projected) == len(fusion.blocks)
    for keys, values in projected:
        assert keys.shape == values.shape == (2, 6, 2, 2)
        assert keys.dtype == values.dtype == fusion.compute_dtype
    for states in (STATES, STATES[::-1]):
        np.testing.assert_array_equal(
            fusion.attend(states, projected, PADDING_MASK),
            fusion(states, GRID, PADDING_MASK),
        )


@pytest.mark.parametrize("shape", [(None, None, 6), (2, 3, None), (1, 2, 3, 4)])
def test_number_of_cells_and_channels_must_be_known(shape):
    fusion = CrossAttentionFusion(num_layers=1, num_heads=2, intermediate_dim=8)
    with pytest.raises(ValueError, match="`image_embedding` must have the"):
        fusion(keras.Input((None, 4)), keras.Input(shape))


def test_training_drops_whole_channels_of_the_image():
    fusion = make_fusion(image_dropout=0.5)
    cells = np.ones((1, 2, 3, 6), "float32") * np.arange(1, 7)
    fusion.image_projection.kernel.assign(np.eye(6, 4))
    fusion.image_projection.bias.assign(np.zeros(4))
    fusion.position_embedding.assign(np.zeros((6, 4)))
    fusion.image_norm.beta.assign(np.ones(6))
    fusion.image_norm.gamma.assign(np.zeros(6))
    seen = set()
    for _ in range(20):
        fusion(STATES[:1], cells, training=True)
        layer = fusion.image_dropout_layer
        dropped = np.array(layer(np.ones((1, 6, 4), "float32"), training=True))
        assert (dropped == dropped[:, :1]).all()
        seen |= set(dropped.ravel().tolist())
    assert seen == {0.0, 2.0}
    for keys, values in fusion.project_image(cells):
        # Without dropout all cells are alike.
        for each in (np.array(keys), np.array(values)):
            np.testing.assert_allclose(each, each[:, :1] + 0 * each, atol=1e-6)


def test_final_norm_normalises_the_states_of_the_last_block():
    plain, fusion = make_fusion(), make_fusion(final_norm=True)
    fusion.set_weights([*plain.get_weights(), *fusion.states_norm.weights])
    scale = RNG.normal(size=4).astype("float32")
    fusion.states_norm.gamma.assign(scale)
    fusion.states_norm.beta.assign(np.ones(4))
    states = np.array(plain(STATES, GRID, PADDING_MASK), "float64")
    states = states - states.mean(-1, keepdims=True)
    states = states / np.sqrt((states**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        fusion(STATES, GRID, PADDING_MASK), states * scale + 1, atol=1e-5
    )
    again = CrossAttentionFusion.from_config(fusion.get_config())
    assert again.final_norm
