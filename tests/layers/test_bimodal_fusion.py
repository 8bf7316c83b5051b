import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.layers import BimodalFusion, ImageEmbeddingRepeat


def draw(*shape):
    rng = np.random.default_rng(sum(shape))
    return tf.constant(rng.normal(size=shape), "float32")


def value_and_gradients(call, variables, states, image):
    with tf.GradientTape() as tape:
        tape.watch([states, image])
        fused = call(states, image)
        # Another weight for every number, so that no error cancels out.
        loss = tf.reduce_sum(
            fused
            * tf.reshape(tf.linspace(-1.0, 2.0, tf.size(fused)), fused.shape)
        )
    sources = [*(variable.value for variable in variables), states, image]
    return fused, tape.gradient(loss, sources)


@pytest.mark.parametrize("grid", [(3,), (2, 3), (2, 2, 3)])
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_it_equals_a_dense_layer_over_the_concatenation(grid, activation):
    states, image = draw(2, 4, 5), draw(2, *grid)
    fusion = BimodalFusion(7, activation, bias_initializer="random_normal")
    dense = keras.layers.Dense(7, activation)

    def concat_and_project(states, image):
        repeated = ImageEmbeddingRepeat()(image, states)
        return dense(keras.layers.Concatenate()([states, repeated]))

    fusion(states, image)
    concat_and_project(states, image)
    dense.set_weights(fusion.get_weights())
    actual = value_and_gradients(fusion, fusion.weights, states, image)
    expected = value_and_gradients(
        concat_and_project, dense.weights, states, image
    )
    np.testing.assert_allclose(actual[0], expected[0], atol=1e-5)
    assert len(actual[1]) == 4
    for one, other in zip(actual[1], expected[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_image_may_be_projected_once_for_many_captions(dtype):
    fusion = BimodalFusion(7, "tanh", dtype=dtype)
    states, image = draw(6, 4, 5), draw(2, 2, 3)
    expected = fusion(states, np.repeat(image, 3, axis=0))
    projected = fusion.project_image(image)
    assert projected.shape == (2, 7)
    assert projected.dtype == fusion.compute_dtype
    # Three captions of each image are neighbouring rows.
    for found in (fusion(states, image), fusion.attend(states, projected)):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_image_is_never_copied_along_the_tokens():
    fusion = BimodalFusion(2)
    traced = tf.function(fusion).get_concrete_function(
        tf.TensorSpec((3, 50, 4)), tf.TensorSpec((3, 600))
    )
    sizes = [
        output.shape.num_elements() or 0
        for operation in traced.graph.get_operations()
        for output in operation.outputs
    ]
    # The image of the batch and the kernel are the greatest tensors.
    assert max(sizes) == 3 * 600


def test_output_carries_the_mask_of_the_token_states():
    token_ids = np.array([[3, 4, 0], [5, 0, 0]])
    states = keras.layers.Embedding(6, 5, mask_zero=True)(token_ids)
    fused = BimodalFusion(7)(states, draw(2, 3))
    np.testing.assert_array_equal(fused._keras_mask, token_ids != 0)


@pytest.mark.parametrize(
    ("states", "image", "message"),
    [
        ((5,), (3,), r"`token_states` must.*\(None, 5\)"),
        ((None, 5), (None, 3), r"known.*\(None, None, 3\)"),
    ],
)
def test_sizes_of_the_kernel_must_be_known(states, image, message):
    with pytest.raises(ValueError, match=message):
        BimodalFusion(7)(keras.Input(states), keras.Input(image))
