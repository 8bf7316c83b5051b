import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from bmt_keras.layers import BimodalFusion, CrossAttentionFusion, TokenMasking
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.models.image_towers import small_cnn
from bmt_keras.models.lora import find_lora_layers
from bmt_keras.models.precision import dtype_policy

VOCABULARY, LENGTH, WIDTH = 20, 7, 16
SPECIAL = [0, 1, 2, 3, 4]


@pytest.fixture
def make_model(tiny_albert):
    def make(*, with_tower=False, length_head=True):
        keras.utils.set_random_seed(1)
        return BimodalMaskedLM(
            tiny_albert(VOCABULARY),
            CrossAttentionFusion(
                num_layers=1, num_heads=2, intermediate_dim=16
            ),
            masking=TokenMasking(4, SPECIAL, seed=3),
            image_tower=small_cnn(16, 16, channels=8) if with_tower else None,
            image_embedding_shape=None if with_tower else (2, 2, 6),
            max_caption_tokens=10 if length_head else None,
        )

    return make


def make_batch(*, with_tower=False, rows=4):
    rng = np.random.default_rng(0)
    token_ids = rng.integers(5, VOCABULARY, (rows, LENGTH)).astype("int32")
    token_ids[:, 0], token_ids[:, -1] = 2, 3
    image = rng.normal(size=(rows, 2, 2, 6)).astype("float32")
    pixels = rng.uniform(0, 255, (rows, 16, 16, 3)).astype("float32")
    batch = {
        "token_ids": token_ids,
        "padding_mask": np.ones((rows, LENGTH), "int32"),
    }
    if with_tower:
        return {**batch, "images": pixels}
    return {**batch, "image_embedding": image}


def compiled(model, rate=1e-2, *, eager=True):
    """Eager unless a test takes many steps: tracing takes seconds."""
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        jit_compile=False,
        run_eagerly=eager,
    )
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("with_tower", [False, True])
def test_fit_learns_a_batch_by_heart(make_model, with_tower):
    model = compiled(make_model(with_tower=with_tower), eager=False)
    batch = make_batch(with_tower=with_tower)
    first = model.evaluate(batch, verbose=0, return_dict=True)
    model.fit(batch, epochs=60, verbose=0)
    last = model.evaluate(batch, verbose=0, return_dict=True)
    assert last["loss"] < 0.7 * first["loss"]
    assert last["masked_accuracy"] > first["masked_accuracy"]


def test_evaluation_masks_the_same_tokens_every_time(make_model):
    model, batch = compiled(make_model()), make_batch()
    first, second = (
        model.evaluate(batch, verbose=0, return_dict=True) for _ in range(2)
    )
    assert first == second


def test_a_batch_of_padding_alone_changes_nothing_and_is_no_nan(make_model):
    model = compiled(make_model(length_head=False))
    batch = make_batch()
    batch["token_ids"][:] = 0
    batch["padding_mask"][:] = 0
    before = [
        ops.convert_to_numpy(weight) for weight in model.trainable_weights
    ]
    logs = model.train_on_batch(batch, return_dict=True)
    assert logs["loss"] == 0.0
    for old, new in zip(before, model.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_blank_rows_change_no_loss(make_model):
    model, batch = compiled(make_model()), make_batch()
    blank = {
        name: np.concatenate([rows, np.zeros_like(rows[:2])])
        for name, rows in batch.items()
    }
    blank["image_embedding"][4:] = batch["image_embedding"][:2]
    blank |= {"rows": np.array([0, 1, 2, 3, 3, 3], "int32"), "num_rows": 4}
    whole, found = (
        model.test_on_batch(each, return_dict=True) for each in (batch, blank)
    )
    assert found == pytest.approx(whole, abs=1e-6)


def test_padding_changes_neither_logits_nor_length(make_model):
    model, batch = make_model(), make_batch()
    positions = np.tile(np.array([[1, 3]], "int32"), (4, 1))
    wider = {
        name: np.pad(batch[name], ((0, 0), (0, 4)))
        for name in ("token_ids", "padding_mask")
    }
    short = model({**batch, "mask_positions": positions})
    long = model({**batch, **wider, "mask_positions": positions})
    for name in ("logits", "length_logits"):
        np.testing.assert_allclose(short[name], long[name], atol=1e-5)


@pytest.mark.parametrize("with_tower", [False, True])
def test_saved_model_reloads_and_goes_on_training(
    make_model, tmp_path, with_tower
):
    model = compiled(make_model(with_tower=with_tower))
    batch = make_batch(with_tower=with_tower)
    model.fit(batch, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    inputs = {**batch, "mask_positions": np.ones((4, 1), "int32")}
    np.testing.assert_allclose(
        model(inputs)["logits"], again(inputs)["logits"], atol=1e-6
    )
    assert isinstance(again, BimodalMaskedLM)
    assert int(again.optimizer.iterations) == 2
    for one in (model, again):
        one.fit(batch, epochs=2, verbose=0, shuffle=False)
    # The mask's seed is saved too: both draw the same masks.
    np.testing.assert_allclose(
        model(inputs)["logits"], again(inputs)["logits"], atol=1e-5
    )


def test_scaled_loss_trains_in_mixed_float16(make_model):
    with dtype_policy("mixed_float16"):
        model = make_model()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(1e-3), initial_scale=64.0
    )
    model.compile(optimizer=optimizer, jit_compile=False, run_eagerly=True)
    before = ops.convert_to_numpy(model.head.bias)
    logs = model.train_on_batch(make_batch(), return_dict=True)
    assert np.isfinite(logs["loss"])
    # Unscaled, Adam's first step is its learning rate at most.
    change = np.abs(ops.convert_to_numpy(model.head.bias) - before).max()
    assert 0 < change <= 1.01e-3


def test_head_is_tied_to_the_token_embedding(make_model):
    model, batch = make_model(), make_batch()
    table = model.text_tower.token_embedding.embeddings
    changed = ops.convert_to_numpy(table).copy()
    changed[11] += 1.0  # token 11 is not among the inputs' positions below
    batch["token_ids"][batch["token_ids"] == 11] = 12
    inputs = {**batch, "mask_positions": np.ones((4, 1), "int32")}
    before = ops.convert_to_numpy(model(inputs)["logits"])
    table.assign(changed)
    after = ops.convert_to_numpy(model(inputs)["logits"])
    assert np.abs(after - before)[..., 11].min() > 0
    np.testing.assert_allclose(after[..., :11], before[..., :11], atol=1e-6)


def test_image_must_come_from_one_side(make_model):
    with pytest.raises(ValueError, match="either `image_tower` or"):
        BimodalMaskedLM(
            make_model().text_tower,
            CrossAttentionFusion(
                num_layers=1, num_heads=2, intermediate_dim=16
            ),
            masking=TokenMasking(4, SPECIAL),
        )


def loss_of(model, batch, **options):
    return model.test_on_batch(batch, return_dict=True, **options)["loss"]


def test_sample_weight_weighs_captions(make_model):
    model, batch = compiled(make_model(length_head=False)), make_batch()
    parts = np.eye(4, dtype="float32")
    losses = [loss_of(model, batch, sample_weight=part) for part in parts]
    whole = loss_of(model, batch)
    assert sum(losses) == pytest.approx(whole, rel=1e-5)
    assert min(losses) > 0.01
    weights = np.array([2.0, 0.0, -1.0, 0.5], "float32")
    assert loss_of(model, batch, sample_weight=weights) == pytest.approx(
        float(weights @ losses), rel=1e-4
    )


def test_sample_weight_is_taken_in_every_way_that_keras_has(make_model):
    model, batch = compiled(make_model()), make_batch()
    weights = np.array([2.0, 0.0, -1.0, 0.5], "float32")
    expected = loss_of(model, batch, sample_weight=weights)
    assert abs(expected - loss_of(model, batch)) > 0.01
    entry = {**batch, "sample_weight": weights}
    dataset = tf.data.Dataset.from_tensors(entry)
    triples = dataset.map(lambda x: (x, None, x["sample_weight"]))
    triples = triples.map(lambda x, y, w: ({k: x[k] for k in batch}, y, w))
    for data in (dataset, triples):
        found = model.evaluate(data, verbose=0, return_dict=True)["loss"]
        assert found == pytest.approx(expected, rel=1e-5)
    found = model.evaluate(batch, sample_weight=weights, verbose=0)[0]
    assert found == pytest.approx(expected, rel=1e-5)
    history = model.fit(
        batch,
        sample_weight=np.zeros(4, "float32"),
        validation_data=(batch, None, weights),
        verbose=0,
    ).history
    assert history["loss"] == [0.0]
    assert history["val_loss"][0] == pytest.approx(expected, rel=1e-5)


def test_labels_and_losses_are_refused(make_model):
    model, batch = compiled(make_model()), make_batch()
    labels = np.zeros(4)
    pairs = tf.data.Dataset.from_tensors((batch, labels))
    for call in (
        lambda: model.fit(batch, labels, verbose=0),
        lambda: model.fit(batch, validation_data=(batch, labels), verbose=0),
        lambda: model.fit(pairs, shuffle=False, verbose=0),
        lambda: model.evaluate(batch, labels, verbose=0),
        lambda: model.train_on_batch(batch, labels),
        lambda: model.test_on_batch(batch, labels),
    ):
        with pytest.raises(ValueError, match="`y` must be None"):
            call()
    for options in ({"loss": "mse"}, {"loss_weights": [1.0]}):
        with pytest.raises(ValueError, match="must be None: the model has its"):
            model.compile(optimizer="adam", **options)


@pytest.mark.parametrize("name", ["metrics", "weighted_metrics"])
def test_metrics_are_those_of_the_masked_tokens(make_model, tmp_path, name):
    model, batch = make_model(), make_batch()
    metric = keras.metrics.SparseCategoricalAccuracy(name="again")
    model.compile(optimizer="sgd", run_eagerly=True, **{name: [metric]})
    history = model.fit(batch, epochs=2, verbose=0).history
    assert history["again"] == pytest.approx(history["masked_accuracy"])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found = loaded.evaluate(batch, verbose=0, return_dict=True)
    assert found["again"] == pytest.approx(found["masked_accuracy"])


def test_metrics_are_refused_where_xla_compiles_the_steps(make_model):
    with pytest.raises(ValueError, match="`metrics` must be None where XLA"):
        make_model().compile("sgd", metrics=["accuracy"], jit_compile=True)


def test_constructor_freezes_the_text_towers_pooler_alone(tiny_albert):
    tower = tiny_albert(VOCABULARY)
    arguments = {
        "fusion": BimodalFusion(8),
        "masking": TokenMasking(4, SPECIAL),
        "image_embedding_shape": (2, 2, 6),
    }
    model = BimodalMaskedLM(tower, lora_rank=2, **arguments)
    assert model.text_tower is not tower
    assert all(weight.trainable for weight in tower.weights)
    with pytest.raises(ValueError, match="`rank` must be positive"):
        BimodalMaskedLM(tower, lora_rank=0, **arguments)
    plain = BimodalMaskedLM(tower, **arguments)
    assert plain.text_tower is tower
    assert not find_lora_layers(tower)
    # Nothing reads the pooled output, and so nothing trains it.
    frozen = [weight for weight in tower.weights if not weight.trainable]
    assert {id(w) for w in frozen} == {
        id(w) for w in tower.pooled_dense.weights
    }
