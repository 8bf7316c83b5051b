"""Preset `notebook` computes what the model of the 2020 notebook computes.

`tests/golden/notebook/make.py` stored the other side's numbers, made by the
classes of transformers that the notebook used.
"""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from bmt_keras.models import build_masked_lm
from bmt_keras.presets import PRESETS
from bmt_keras.training.optimizer import build_optimizer

GOLDEN = Path(__file__).parents[1] / "golden" / "notebook"
TINY = {
    "text_num_layers": 3,
    "text_num_heads": 2,
    "text_embedding_dim": 8,
    "text_hidden_dim": 16,
    "text_intermediate_dim": 32,
    "sequence_length": 12,
    "max_positions": 12,
}
KERNEL = "predictions/dense/kernel"
# The notebook's head has a second bias, which nothing reads or trains.
UNREAD = "predictions/bias"
NOT_MASKED = -100
CLOSE = {"rtol": 1e-6, "atol": 5e-6}


def build_notebook(*, vocabulary_size, image_shape, **sizes):
    image = keras.Input(image_shape)
    return build_masked_lm(
        PRESETS["notebook"].replace(text_weights="random", **sizes),
        SimpleNamespace(
            vocabulary_size=vocabulary_size,
            mask_token_id=4,
            special_token_ids=[0, 1, 2, 3, 4],
        ),
        image_tower=keras.Model(image, keras.layers.Identity()(image)),
    )


def variables_by_notebook_name(model):
    albert, head = model.text_tower, model.head
    block = albert.transformer_layers[0][0]
    attention = block._self_attention_layer
    dense = {
        "albert/encoder/embedding_hidden_mapping_in": (
            albert.embeddings_projection
        ),
        "albert/encoder/layer/attention/query": attention.query_dense,
        "albert/encoder/layer/attention/key": attention.key_dense,
        "albert/encoder/layer/attention/value": attention.value_dense,
        "albert/encoder/layer/attention/dense": attention.output_dense,
        "albert/encoder/layer/ffn": block._feedforward_intermediate_dense,
        "albert/encoder/layer/ffn_output": block._feedforward_output_dense,
        "albert/pooler": albert.pooled_dense,
        "predictions/dense": model.fusion,
    }
    norms = {
        "albert/embeddings/LayerNorm": albert.embeddings_layer_norm,
        "albert/encoder/layer/attention/LayerNorm": (
            block._self_attention_layer_norm
        ),
        "albert/encoder/layer/full_layer_layer_norm": (
            block._feedforward_layer_norm
        ),
        "predictions/LayerNorm": head.layer_norm,
    }
    words, segments = albert.token_embedding, albert.segment_embedding
    positions = albert.position_embedding.position_embeddings
    return {
        "albert/embeddings/word_embeddings/weight": words.embeddings,
        "albert/embeddings/token_type_embeddings/embeddings": (
            segments.embeddings
        ),
        "albert/embeddings/position_embeddings/embeddings": positions,
        **{f"{name}/kernel": layer.kernel for name, layer in dense.items()},
        **{f"{name}/bias": layer.bias for name, layer in dense.items()},
        **{f"{name}/gamma": layer.gamma for name, layer in norms.items()},
        **{f"{name}/beta": layer.beta for name, layer in norms.items()},
        "predictions/decoder/bias": head.bias,
    }


def read_group(golden, prefix):
    return {
        name.removeprefix(prefix): values
        for name, values in golden.items()
        if name.startswith(prefix)
    }


def read_batch(golden, step):
    batch = {k: v[step] for k, v in read_group(golden, "batches/").items()}
    return batch, batch.pop("labels")


def slots(labels):
    """Masked positions first, as `TokenMasking` gives them."""
    positions = np.argsort(labels == NOT_MASKED, axis=1, kind="stable")
    labels = np.take_along_axis(labels, positions, axis=1)
    used = labels != NOT_MASKED
    masks = {
        "mask_positions": np.where(used, positions, 0).astype("int32"),
        "labels": np.where(used, labels, 0),
        "sample_weight": used.astype("float32"),
    }
    return {name: ops.convert_to_tensor(each) for name, each in masks.items()}


def train_on(model, batch, labels):
    model.masking = lambda token_ids, **_: {
        "token_ids": token_ids,
        **slots(labels),
    }
    model.reset_metrics()
    return model.train_on_batch(batch, return_dict=True)["loss"]


def snapshot(model):
    # A view would change with the variable.
    return {
        name: ops.convert_to_numpy(variable).copy()
        for name, variable in variables_by_notebook_name(model).items()
    }


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "tiny.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture
def model(golden):
    model = build_notebook(vocabulary_size=50, image_shape=(2, 2, 6), **TINY)
    weights = read_group(golden, "weights/")
    del weights[UNREAD]
    variables = variables_by_notebook_name(model)
    assert weights.keys() == variables.keys()
    for name, variable in variables.items():
        variable.assign(weights[name].reshape(variable.shape))
    # At rate 1 plain gradient descent subtracts the gradient itself.
    model.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=True)
    return model


def test_logits_equal_the_notebooks(model, golden):
    batch, _ = read_batch(golden, 0)
    logits = model.token_logits(
        *(
            ops.convert_to_tensor(batch[name])
            for name in ("token_ids", "padding_mask", "image_embedding")
        )
    )
    np.testing.assert_allclose(logits, golden["logits"][0], **CLOSE)


def test_loss_and_gradients_equal_the_notebooks(model, golden):
    gradients = read_group(golden, "gradients/")
    before = snapshot(model)
    loss = train_on(model, *read_batch(golden, 0))
    after = snapshot(model)
    np.testing.assert_allclose(loss, golden["loss"][0], **CLOSE)
    assert len(gradients) == len(model.trainable_weights)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(
            before[name] - after[name], gradient[0], **CLOSE, err_msg=name
        )


def test_clipped_adam_steps_end_at_the_notebooks_weights(model, golden):
    settings = PRESETS["notebook"].replace(
        learning_rate=float(golden["learning_rate"])
    )
    optimizer = build_optimizer(settings, total_steps=3)
    model.compile(optimizer=optimizer, run_eagerly=True)
    for step, expected in enumerate(golden["loss"]):
        loss = train_on(model, *read_batch(golden, step))
        np.testing.assert_allclose(loss, expected, **CLOSE)
    trained = read_group(golden, "trained/")
    np.testing.assert_array_equal(
        trained.pop(UNREAD), golden[f"weights/{UNREAD}"]
    )
    weights = snapshot(model)
    for name, expected in trained.items():
        np.testing.assert_allclose(
            weights[name], expected, **CLOSE, err_msg=name
        )


def test_golden_steps_differ_for_one_clipped_kernel_and_two(golden):
    gradient = golden[f"gradients/{KERNEL}"]
    whole = np.linalg.norm(gradient, axis=(1, 2))
    image = np.linalg.norm(gradient[:, TINY["text_hidden_dim"] :], axis=(1, 2))
    # Step 2 clips the image rows for what the text rows bring alone.
    np.testing.assert_array_equal(whole > 1, [True, True, False])
    np.testing.assert_array_equal(image > 1, [True, False, False])


def test_golden_gradients_are_0_or_more_than_rounding(golden):
    for gradient in read_group(golden, "gradients/").values():
        size = np.abs(gradient)
        assert size[size > 0].min() > 1e-5


def test_frozen_albert_is_neither_trained_nor_changed(model, golden):
    trainable = {id(weight) for weight in model.trainable_weights}
    assert not trainable & {id(w) for w in model.text_tower.weights}
    before = snapshot(model)
    for step in range(3):
        train_on(model, *read_batch(golden, step))
    after = snapshot(model)
    changed = {k for k in before if not np.array_equal(before[k], after[k])}
    assert changed == read_group(golden, "gradients/").keys()


def test_caption_without_masks_does_not_change_the_loss(model, golden):
    batch, labels = read_batch(golden, 0)
    assert (labels[-1] == NOT_MASKED).all()
    shorter = {name: values[:-1] for name, values in batch.items()}
    loss = train_on(model, shorter, labels[:-1])
    np.testing.assert_allclose(loss, golden["loss"][0], **CLOSE)


def test_batch_without_masks_has_loss_0_where_the_notebooks_has_nan(
    model, golden
):
    batch, labels = read_batch(golden, 0)
    before = snapshot(model)
    loss = train_on(model, batch, np.full_like(labels, NOT_MASKED))
    assert np.isnan(golden["loss_without_masks"])
    assert loss == 0.0
    for name, values in snapshot(model).items():
        np.testing.assert_array_equal(values, before[name])


def test_preset_trains_with_the_notebooks_adam():
    optimizer = build_optimizer(PRESETS["notebook"], total_steps=10)
    assert type(optimizer) is keras.optimizers.Adam
    np.testing.assert_allclose(float(optimizer.learning_rate), 1e-5)
    assert (optimizer.epsilon, optimizer.clipnorm) == (1e-8, 1.0)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.9, 0.999)


def test_preset_has_the_notebooks_variables():
    parameters = json.loads((GOLDEN / "parameters.json").read_text())
    model = build_notebook(vocabulary_size=30_000, image_shape=(2, 2, 2048))
    frozen, trainable = parameters["frozen"], parameters["trainable"]
    assert frozen["parameters"] == 11_683_584
    assert trainable["parameters"] == 1_207_264
    counts = [
        sum(math.prod(weight.shape) for weight in weights)
        for weights in (model.non_trainable_weights, model.trainable_weights)
    ]
    assert counts == [11_683_584, 1_207_264 - 30_000]
    assert model.count_params() == 12_860_848
    assert trainable["shapes"].pop(UNREAD) == [30_000]
    variables = variables_by_notebook_name(model)
    assert variables.keys() == {*frozen["shapes"], *trainable["shapes"]}
    for name, shape in trainable["shapes"].items():
        assert variables[name].shape == tuple(shape)
    # An attention kernel has its heads in a dimension of their own here.
    for name, shape in frozen["shapes"].items():
        assert math.prod(variables[name].shape) == math.prod(shape)
