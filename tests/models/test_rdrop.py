import keras
import numpy as np
import pytest
from keras import ops

from bmt_keras.layers import CrossAttentionFusion
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.models.masked_batch import mask_batch
from bmt_keras.models.rdrop import rdrop_divergence

RNG = np.random.default_rng(0)
BATCH = {
    "token_ids": np.array([[2, 7, 8, 9, 3], [2, 9, 6, 5, 3]], "int32"),
    "padding_mask": np.ones((2, 5), "int32"),
    "image_embedding": RNG.normal(size=(2, 2, 2, 6)).astype("float32"),
}


@pytest.fixture
def make_model(small_lm):
    def make(*, dropout, rdrop_weight):
        fusion = CrossAttentionFusion(
            1, 2, intermediate_dim=16, dropout=dropout, gate_initializer=None
        )
        return small_lm(12, fusion=fusion, rdrop_weight=rdrop_weight)

    return make


def test_divergence_is_the_mean_of_both_kullback_leibler_divergences():
    one, other = (RNG.normal(size=(3, 5)).astype("float32") for _ in range(2))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (one, other))
    expected = (p * np.log(p / q) + q * np.log(q / p)).sum(-1) / 2
    np.testing.assert_allclose(
        rdrop_divergence(one, other), expected, rtol=1e-4
    )
    np.testing.assert_array_equal(rdrop_divergence(one, one), np.zeros(3))


def test_divergence_of_half_precision_is_computed_in_float32():
    one = ops.cast([[3.0, 1.0]], "float16")
    assert (
        keras.backend.standardize_dtype(rdrop_divergence(one, one + 1).dtype)
        == "float32"
    )


def test_without_dropout_a_step_is_the_plain_one(make_model):
    models = [make_model(dropout=0.0, rdrop_weight=w) for w in (0.0, 5.0)]
    losses = [m.train_on_batch(BATCH, return_dict=True) for m in models]
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-6)
    for one, other in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_loss_is_half_of_both_readings_losses_and_their_divergence(
    make_model, monkeypatch
):
    model = make_model(dropout=0.5, rdrop_weight=3.0)
    inputs, targets = mask_batch(BATCH, model.masking, training=False)
    readings = [model.predict_masked(inputs, training=True) for _ in range(2)]
    left = iter(readings)
    monkeypatch.setattr(model, "predict_masked", lambda *_, **__: next(left))
    outputs, loss = model._judge(inputs, targets)
    one, other = readings
    assert outputs is one
    divergence = ops.mean(rdrop_divergence(one["logits"], other["logits"]))
    losses = [model.total_loss(inputs, each, targets) for each in readings]
    assert float(divergence) > 0
    assert float(loss) == pytest.approx(
        float(losses[0] + losses[1] + 3.0 * divergence) / 2, rel=1e-5
    )


def test_weight_is_part_of_the_configuration(make_model):
    model = make_model(dropout=0.1, rdrop_weight=2.0)
    again = BimodalMaskedLM.from_config(model.get_config())
    assert again.rdrop_weight == 2.0
