"""What a model makes of the words that it finds in a photo."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from bmt_keras.layers import BimodalFusion
from bmt_keras.models.masked_batch import mask_batch, sum_concept_losses
from bmt_keras.training.start import copy_weights

VOCABULARY = 16
RNG = np.random.default_rng(0)
# Two captions of each of three photos; 0 is padding, 2 [CLS], 3 [SEP].
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
SHARES = np.full(VOCABULARY, 0.25, "float32")


@pytest.fixture
def make_model(small_lm):
    def make(*, concept_dim=8, **options):
        model = small_lm(VOCABULARY, concept_dim=concept_dim, **options)
        if model.concept_head is not None:
            model.concept_head.set_shares(SHARES)
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


def evidence_of(model):
    """What is to be added to each row's logits: (rows, 1, vocabulary)."""
    head = model.concept_head
    evidence = ops.convert_to_numpy(
        head.evidence(head(BATCH["image_embedding"]))
    )
    return np.repeat(evidence, 2, axis=0)[:, None]


def test_evidence_is_added_to_the_language_models_logits(make_model):
    model = make_model(concept_weight=0.7, compiled=False)
    plain = logits_of(model, training=True)  # there is no dropout
    found = logits_of(model)
    assert np.ptp(evidence_of(model)) > 0.1
    np.testing.assert_allclose(
        found, plain + 0.7 * evidence_of(model), atol=1e-5
    )
    positions = np.tile(np.array([[1, 2]], "int32"), (6, 1))
    outputs = model({**BATCH, "mask_positions": positions})
    assert outputs["concept_logits"].shape == (3, VOCABULARY)
    np.testing.assert_allclose(outputs["logits"], plain[:, 1:3], atol=1e-5)


def test_logits_of_a_photo_projected_once_are_the_same(make_model):
    model = make_model(compiled=False)
    [image] = tensors("image_embedding")
    projected = model.project_image(image)
    # The candidates of a photo in decoding are rows beside each other.
    for options in ({}, {"skip_padding": True}):
        found = logits_of(model, projected_image=projected, **options)
        is_token = BATCH["padding_mask"] > 0
        np.testing.assert_allclose(
            found[is_token], logits_of(model)[is_token], atol=1e-5
        )


def test_logits_at_flat_positions_are_those_at_the_places(make_model):
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
    evidence = evidence_of(model)  # training changes its statistics
    trained = model.predict_masked(inputs, training=True)
    assert "concept_logits" not in outputs
    np.testing.assert_allclose(
        outputs["logits"],
        trained["logits"] + 0.35 * evidence[rows, 0],
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
    for row, photo in ((0, 0), (1, 0), (2, 1)):
        p = 1 / (1 + np.exp(-logits[photo]))
        held = np.isin(np.arange(VOCABULARY), token_ids[row][1:-1])
        held &= np.arange(VOCABULARY) > 4
        expected -= np.log(np.where(held, p, 1 - p)).sum()
    assert float(count) == 3
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_fit_finds_the_words_of_each_photo(make_model):
    model = make_model()
    for _ in range(150):
        model.train_on_batch(BATCH)
    found = ops.convert_to_numpy(
        ops.sigmoid(model.concept_head(BATCH["image_embedding"]))
    )
    for photo, (held, others) in enumerate(
        [((5,), (9, 10)), ((9,), (5, 10)), ((10,), (5, 9))]
    ):
        assert found[photo, held].min() > found[photo, others].max() + 0.3


def test_an_objective_leaves_the_concepts_as_they_are(make_model):
    class Same:
        def draw(self, batch, step):
            weight = tf.ones(6)
            return {**batch[0], "caption_weight": weight}

    model = make_model()
    model.objective = Same()
    before = [w.numpy() for w in model.concept_head.weights]
    states = model.fusion.weights[0].numpy()
    model.train_on_batch(BATCH)
    for old, new in zip(before, model.concept_head.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.any(states != model.fusion.weights[0].numpy())


def test_head_is_saved_with_the_model(make_model, tmp_path):
    model = make_model(concept_weight=0.25)
    model.train_on_batch(BATCH)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.concept_weight == 0.25
    np.testing.assert_allclose(again.concept_head.shares, SHARES)
    np.testing.assert_allclose(logits_of(again), logits_of(model), atol=1e-6)


def test_dropout_goes_on_where_a_saved_model_stopped(make_model, tmp_path):
    model = make_model()
    model.train_on_batch(BATCH)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
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
        logits_of(target, training=True), logits_of(source), atol=1e-6
    )


def test_concepts_do_not_go_with_a_fusion_of_each_token(make_model):
    with pytest.raises(ValueError, match="`concept_dim` must be None"):
        make_model(fusion=BimodalFusion(8), compiled=False)
