import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.layers.positions import take_positions

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
