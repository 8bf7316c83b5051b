import keras
import numpy as np
import pytest

from bmt_keras.layers import BimodalFusion, TokenMasking
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.models.lora import (
    add_lora,
    find_kernel,
    find_lora_layers,
    merge_lora,
)
from bmt_keras.models.precision import dtype_policy

VOCABULARY, RANK = 20, 2


@pytest.fixture
def plain(tiny_albert):
    return make(tiny_albert)


def make(tiny_albert):
    keras.utils.set_random_seed(1)
    return BimodalMaskedLM(
        tiny_albert(VOCABULARY),
        BimodalFusion(8),
        masking=TokenMasking(4, [0, 1, 2, 3, 4], rate=0.5, seed=3),
        image_embedding_shape=(2, 2, 6),
    )


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    token_ids = rng.integers(5, VOCABULARY, (4, 7)).astype("int32")
    token_ids[:, 0], token_ids[:, -1] = 2, 3
    return {
        "token_ids": token_ids,
        "padding_mask": np.ones((4, 7), "int32"),
        "image_embedding": rng.normal(size=(4, 2, 2, 6)).astype("float32"),
    }


def logits(model, batch):
    positions = np.tile(np.array([[1, 4]], "int32"), (4, 1))
    return np.array(model({**batch, "mask_positions": positions})["logits"])


def trained(model, batch):
    optimizer = keras.optimizers.Adam(1e-2)
    model.compile(optimizer=optimizer, run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    model.fit(batch, epochs=3, verbose=0)
    return model


def albert_weights(model):
    return {w.path: np.array(w) for w in model.text_tower.weights}


def test_lora_changes_no_output_and_trains_few_weights(plain, batch):
    model = add_lora(plain, RANK)
    np.testing.assert_allclose(
        logits(model, batch), logits(plain, batch), atol=1e-6
    )
    changing = [w.path for w in model.text_tower.trainable_weights]
    assert sorted(path.split("/", 2)[-1] for path in changing) == [
        f"{layer}/{name}"
        for layer in ("query", "value")
        for name in ("bias", "lora_kernel_a", "lora_kernel_b")
    ]
    # All that is not ALBERT's own goes on to learn.
    others = len(plain.weights) - len(plain.text_tower.weights)
    assert len(model.trainable_weights) == len(changing) + others


def test_training_leaves_the_rest_of_albert(plain, batch):
    model = add_lora(plain, RANK)
    before = albert_weights(model)
    changing = {w.path for w in model.text_tower.trainable_weights}
    for path, after in albert_weights(trained(model, batch)).items():
        assert np.array_equal(after, before[path]) == (path not in changing)


def test_saved_model_goes_on_as_if_it_had_not_been_saved(
    plain, batch, tmp_path
):
    model = trained(add_lora(plain, RANK), batch)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.lora_rank == RANK
    for path, value in albert_weights(again).items():
        np.testing.assert_allclose(
            value, albert_weights(model)[path], atol=1e-6
        )
    for one in (model, again):
        one.run_eagerly = True
        one.fit(batch, epochs=3, verbose=0, shuffle=False)
    assert int(again.optimizer.iterations) == 6
    np.testing.assert_allclose(
        logits(again, batch), logits(model, batch), atol=1e-4
    )


def test_bfloat16_rounds_no_kernel(tiny_albert, batch, tmp_path):
    with dtype_policy("mixed_bfloat16"):
        model = make(tiny_albert)
    model = trained(add_lora(model, RANK), batch)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for path, value in albert_weights(again).items():
        np.testing.assert_array_equal(value, albert_weights(model)[path])
    kernels = {weight.path: weight for weight in merge_lora(model).weights}
    for layer in find_lora_layers(model):
        assert layer.kernel.dtype == "bfloat16"
        kernel = find_kernel(layer)
        factors = np.array(layer.lora_kernel_a) @ np.array(layer.lora_kernel_b)
        np.testing.assert_allclose(
            kernels[kernel.path],
            np.array(kernel) + layer.lora_alpha / RANK * factors,
            atol=1e-6,
        )


def test_merged_model_has_the_outputs_and_no_lora(plain, batch, tmp_path):
    model = trained(add_lora(plain, RANK), batch)
    merged = merge_lora(model)
    assert not find_lora_layers(merged)
    assert len(merged.weights) == len(plain.weights)
    assert np.abs(logits(merged, batch) - logits(plain, batch)).max() > 1e-3
    np.testing.assert_allclose(
        logits(merged, batch), logits(model, batch), atol=1e-5
    )
    merged.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        logits(again, batch), logits(merged, batch), atol=1e-6
    )
