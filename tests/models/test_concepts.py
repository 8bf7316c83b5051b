"""What a model makes of the tokens that an image's captions may hold."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from bmt_keras.layers import BimodalFusion
from bmt_keras.models.training_step import mask_batch, sum_concept_losses
from bmt_keras.training.run import copy_weights

VOCABULARY = 16
RNG = np.random.default_rng(0)
# Two captions of each of three images; 0 is padding, 2 [CLS], 3 [SEP].
BATCH = {
    "token_ids": np.array(
        [
            [2, 5, 6, 7, 3],
            [2, 5, 8, 3, 0],
            [2, 9, 9, 6, 3],
            [2, 9, 7, 3, 0],
            [2, 10, 3, 0, 0],
            [2, 10, 11, 12, 3],
        ],
        "int32",
    ),
    "image_embedding": RNG.normal(size=(3, 2, 2, 6)).astype("float32"),
}
BATCH["padding_mask"] = (BATCH["token_ids"] > 0).astype("int32")
PRIOR = np.full(VOCABULARY, 0.25, "float32")


@pytest.fixture
def make_model(small_lm):
    def make(*, concept_dim=8, **options):
        model = small_lm(VOCABULARY, concept_dim=concept_dim, **options)
        if model.concept_head is not None:
            model.concept_head.adapt(PRIOR)
        return model

    return make


def tensors(*names):
    return [tf.constant(BATCH[name]) for name in names]


def logits_of(model, **options):
    return ops.convert_to_numpy(
        model.token_logits(
            *tensors("token_ids", "padding_mask", "image_embedding"), **options
        )
    )


def called_logits_of(model):
    """The logits of the model's call, without log-odds, at all positions."""
    positions = np.tile(np.arange(5, dtype="int32"), (6, 1))
    outputs = model({**BATCH, "mask_positions": positions})
    return ops.convert_to_numpy(outputs["logits"])


def log_odds_of(model):
    """What is to be added to each row's logits: (rows, 1, vocabulary)."""
    head = model.concept_head
    log_odds = ops.convert_to_numpy(
        head.log_odds(head(BATCH["image_embedding"]))
    )
    return np.repeat(log_odds, 2, axis=0)[:, None]


def test_log_odds_are_added_to_the_language_models_logits(make_model):
    model = make_model(concept_weight=0.7, compiled=False)
    log_odds = log_odds_of(model)
    assert np.ptp(log_odds) > 0.1
    assert model.output["concept_logits"].shape == (None, VOCABULARY)
    np.testing.assert_allclose(
        logits_of(model), called_logits_of(model) + 0.7 * log_odds, atol=1e-5
    )


@pytest.mark.parametrize("concept_dim", [None, 8])
@pytest.mark.parametrize("fusion", [None, BimodalFusion])
def test_logits_of_an_image_projected_once_are_the_same(
    make_model, fusion, concept_dim
):
    model = make_model(
        compiled=False, concept_dim=concept_dim, fusion=fusion and fusion(8)
    )
    [image] = tensors("image_embedding")
    projected = model.project_image(image)
    if concept_dim is None:
        assert (projected.log_odds, projected.token_probabilities) == ((), ())
    # The candidates of an image in decoding are neighbouring rows.
    tokens = tensors("token_ids", "padding_mask")
    for options in ({}, {"skip_padding": True}):
        found = np.array(
            model.token_logits(*tokens, projected_image=projected, **options)
        )
        is_token = BATCH["padding_mask"] > 0
        np.testing.assert_allclose(
            found[is_token], logits_of(model)[is_token], atol=1e-5
        )


def test_logits_at_flat_positions_are_those_at_the_positions(make_model):
    model = make_model(compiled=False)
    flat = np.array([1, 6, 7, 13, 28], "int32")
    found = logits_of(model, mask_positions=tf.constant(flat))
    everywhere = logits_of(model).reshape(-1, VOCABULARY)
    np.testing.assert_allclose(found, everywhere[flat], atol=1e-5)


def test_evaluation_reads_the_concepts_and_training_does_not(make_model):
    model = make_model()
    inputs, _ = mask_batch(BATCH, model.masking, training=False)
    rows = np.array(inputs["mask_positions"]) // 5
    outputs = model.predict_masked(inputs, training=False)
    log_odds = log_odds_of(model)  # training changes its statistics
    trained = model.predict_masked(inputs, training=True)
    assert "concept_logits" not in outputs
    np.testing.assert_allclose(
        outputs["logits"],
        trained["logits"] + 0.35 * log_odds[rows, 0],
        atol=1e-5,
    )


def test_loss_is_that_of_a_caption_holding_each_token():
    logits = RNG.normal(size=(3, VOCABULARY)).astype("float32")
    token_ids = BATCH["token_ids"][:4].copy()
    token_ids[3] = 0  # no caption
    total, count = sum_concept_losses(
        tf.constant(logits[:2]), tf.constant(token_ids), [0, 1, 2, 3, 4]
    )
    expected = 0.0
    for row, image in ((0, 0), (1, 0), (2, 1)):
        p = 1 / (1 + np.exp(-logits[image]))
        held = np.isin(np.arange(VOCABULARY), token_ids[row][1:-1])
        held &= np.arange(VOCABULARY) > 4
        expected -= np.log(np.where(held, p, 1 - p)).sum()
    assert float(count) == 3
    assert float(total) == pytest.approx(expected, rel=1e-5)
    weight = tf.constant([0.0, 0.0, -1.0, 5.0])
    weighted, _ = sum_concept_losses(
        tf.constant(logits[:2]), tf.constant(token_ids), [0, 1, 2, 3, 4], weight
    )
    last = np.log(np.where(held, p, 1 - p)).sum()
    assert float(weighted) == pytest.approx(last, rel=1e-5)


def test_fit_finds_the_tokens_of_each_image(make_model):
    model = make_model()
    for _ in range(150):
        model.train_on_batch(BATCH)
    found = ops.convert_to_numpy(
        ops.sigmoid(model.concept_head(BATCH["image_embedding"]))
    )
    for image, (held, others) in enumerate(
        [((5,), (9, 10)), ((9,), (5, 10)), ((10,), (5, 9))]
    ):
        assert found[image, held].min() > found[image, others].max() + 0.3


def test_saved_model_goes_on_where_it_stopped(make_model, tmp_path):
    model = make_model(concept_weight=0.25)
    model.train_on_batch(BATCH)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.concept_weight == 0.25
    np.testing.assert_allclose(again.concept_head.prior, PRIOR)
    np.testing.assert_allclose(logits_of(again), logits_of(model), atol=1e-6)
    # The dropout's draws go on, too.
    for each in (model, again):
        each.run_eagerly = True
        each.train_on_batch(BATCH)
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_start_without_a_head_leaves_it_fresh(make_model):
    source = make_model(concept_dim=None, compiled=False)
    target = make_model(compiled=False)
    for weight in source.weights:
        if weight.trainable:
            weight.assign(weight + 1.0)
    fresh = [w.numpy() for w in target.concept_head.weights]
    copy_weights(source, target)
    for old, new in zip(fresh, target.concept_head.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_allclose(
        called_logits_of(target), logits_of(source), atol=1e-6
    )
