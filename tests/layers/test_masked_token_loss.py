import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.layers import MaskedTokenLoss

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(2, 3, 5)).astype("float32")
LABELS = np.array([[1, 4, 0], [2, 2, 3]])
WEIGHT = np.float32([[1, 0, 1], [1, 0, 0]])


def negative_log_softmax(logits):
    return np.log(np.exp(logits).sum(-1, keepdims=True)) - logits


def test_loss_is_the_mean_of_the_masked_tokens_in_nats():
    # log(1 + e), for logits (1, 0) with label 1, and log(2)
    logits = np.float32([[[1, 0], [3, 3], [9, 0]]])
    loss = MaskedTokenLoss()(
        logits, np.array([[1, 0, 1]]), np.float32([[1, 1, 0]])
    )
    expected = (np.log(1 + np.e) + np.log(2)) / 2
    np.testing.assert_allclose(loss, expected, 1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [WEIGHT, WEIGHT * LABELS / 10])
def test_loss_is_the_weighted_cross_entropy_with_soft_labels(
    label_smoothing, weight
):
    soft = np.eye(5)[LABELS] * (1 - label_smoothing) + label_smoothing / 5
    each = (soft * negative_log_softmax(LOGITS)).sum(-1)
    expected = (each * weight).sum() / weight.sum()
    loss = MaskedTokenLoss(label_smoothing)(LOGITS, LABELS, weight)
    np.testing.assert_allclose(loss, expected, 1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_nothing_masked_gives_zero_loss_and_gradient(label_smoothing):
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = MaskedTokenLoss(label_smoothing)(logits, LABELS, WEIGHT * 0)
    assert loss == 0
    np.testing.assert_array_equal(tape.gradient(loss, logits), LOGITS * 0)


def test_labels_of_no_weight_may_be_anything():
    labels = np.where(WEIGHT > 0, LABELS, -100)
    np.testing.assert_array_equal(
        MaskedTokenLoss()(LOGITS, labels, WEIGHT),
        MaskedTokenLoss()(LOGITS, LABELS, WEIGHT),
    )


def test_without_weights_every_position_counts():
    np.testing.assert_array_equal(
        MaskedTokenLoss()(LOGITS, LABELS),
        MaskedTokenLoss()(LOGITS, LABELS, np.ones_like(WEIGHT)),
    )


@pytest.mark.parametrize("masked", ["logits", "labels"])
def test_mask_of_the_inputs_takes_the_place_of_weights(masked):
    inputs = {"logits": tf.constant(LOGITS), "labels": tf.constant(LABELS)}
    inputs[masked]._keras_mask = tf.constant(WEIGHT > 0)
    loss = MaskedTokenLoss()(inputs["logits"], inputs["labels"])
    np.testing.assert_array_equal(
        loss, MaskedTokenLoss()(LOGITS, LABELS, WEIGHT)
    )
    inputs["logits"]._keras_mask = tf.constant(WEIGHT > 5)
    weighted = MaskedTokenLoss()(inputs["logits"], inputs["labels"], WEIGHT)
    np.testing.assert_array_equal(weighted, loss)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_loss_is_float32_whatever_the_policy(dtype):
    # float16 knows nothing between 2048 and 2050.
    logits, labels = np.float32([[[2048, 2049]]]), np.array([[0]])
    loss = MaskedTokenLoss(dtype=dtype)(logits, labels)
    assert loss.dtype == "float32"
    np.testing.assert_allclose(loss, np.log(1 + np.e), 1e-4)


def make_model(**kwargs):
    logits, labels = keras.Input((3, 5)), keras.Input((3,), dtype="int32")
    weight = keras.Input((3,))
    x = keras.layers.Dense(5, kernel_initializer="identity")(logits)
    loss = MaskedTokenLoss(**kwargs)(x, labels, weight)
    return keras.Model([logits, labels, weight], loss)


def test_added_loss_trains_a_model_compiled_without_one():
    model = make_model(add_loss=True)
    model.compile(keras.optimizers.SGD(0.5))
    before = model([LOGITS, LABELS, WEIGHT])
    history = model.fit([LOGITS, LABELS, WEIGHT], epochs=3, verbose=0)
    losses = history.history["loss"]
    np.testing.assert_allclose(losses[0], before, 1e-5)
    assert losses[2] < losses[1] < losses[0]


def test_loss_is_added_only_when_asked_for():
    model = make_model()
    model([LOGITS, LABELS, WEIGHT])
    assert model.losses == []
