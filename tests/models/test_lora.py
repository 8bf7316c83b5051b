import keras
import numpy as np
import pytest

from bmt_keras.layers import BimodalFusion, TokenMasking
from bmt_keras.models import BimodalMaskedLM, build_albert
from bmt_keras.models.lora import add_lora, find_lora_layers, merge_lora

VOCABULARY, RANK = 20, 2


@pytest.fixture
def plain():
    keras.utils.set_random_seed(1)
    return BimodalMaskedLM(
        build_albert(
            vocabulary_size=VOCABULARY,
            num_layers=2,
            num_heads=2,
            embedding_dim=8,
            hidden_dim=16,
            intermediate_dim=16,
            sequence_length=12,
        ),
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


def compiled(model):
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        jit_compile=False,
        run_eagerly=True,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def albert_weights(model):
    return {w.path: np.array(w) for w in model.text_tower.weights}


def test_lora_changes_no_output_and_trains_few_weights(plain, batch):
    model = add_lora(plain, RANK)
    np.testing.assert_allclose(
        logits(model, batch), logits(plain, batch), atol=1e-6
    )
    trained = [w.path for w in model.text_tower.trainable_weights]
    assert sorted(path.split("/", 2)[-1] for path in trained) == [
        "query/bias",
        "query/lora_kernel_a",
        "query/lora_kernel_b",
        "value/bias",
        "value/lora_kernel_a",
        "value/lora_kernel_b",
    ]
    # All that is not ALBERT's own goes on to learn.
    others = len(plain.weights) - len(plain.text_tower.weights)
    assert len(model.trainable_weights) == len(trained) + others


def test_training_leaves_the_rest_of_albert(plain, batch):
    model = compiled(add_lora(plain, RANK))
    before = albert_weights(model)
    model.fit(batch, epochs=3, verbose=0)
    trained = {w.path for w in model.text_tower.trainable_weights}
    for path, after in albert_weights(model).items():
        assert np.array_equal(after, before[path]) == (path not in trained)


def test_saved_model_goes_on_as_if_it_had_not_been_saved(
    plain, batch, tmp_path
):
    model = compiled(add_lora(plain, RANK))
    model.fit(batch, epochs=3, verbose=0)
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


def test_merged_model_has_the_outputs_and_no_lora(plain, batch, tmp_path):
    model = compiled(add_lora(plain, RANK))
    model.fit(batch, epochs=3, verbose=0)
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


def test_rank_must_be_positive(plain):
    with pytest.raises(ValueError, match="`rank` must be positive"):
        add_lora(plain, -1)
