import keras
import numpy as np

from bmt_keras.models import AveragingAdamW


def test_reloaded_optimizer_decays_kernels_alone(tmp_path):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(2, bias_initializer="ones")
    model = keras.Sequential([keras.Input((3,)), dense])
    model.compile(
        AveragingAdamW(0.1, weight_decay=0.5), "mse", run_eagerly=True
    )
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    kernel, bias = (np.array(weight) for weight in again.weights)
    gradients = [np.zeros_like(kernel), np.zeros_like(bias)]
    again.optimizer.apply(gradients, again.trainable_variables)
    np.testing.assert_allclose(again.weights[0], 0.95 * kernel, rtol=1e-6)
    np.testing.assert_array_equal(again.weights[1], bias)
