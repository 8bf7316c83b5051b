"""Steps that XLA compiles are the plain ones."""

import keras
import numpy as np
import pytest

from bmt_keras.layers import BimodalFusion

RNG = np.random.default_rng(0)
VOCABULARY = 12


def make_batch(rows=4, length=8):
    token_ids = RNG.integers(5, VOCABULARY, (rows, length)).astype("int32")
    padding_mask = np.ones((rows, length), "int32")
    token_ids[:, 0] = 2
    for row, end in enumerate(RNG.integers(3, length, rows)):
        token_ids[row, end] = 3
        token_ids[row, end + 1 :] = padding_mask[row, end + 1 :] = 0
    return {
        "token_ids": token_ids,
        "padding_mask": padding_mask,
        "image_embedding": RNG.normal(size=(rows, 2, 2, 6)).astype("float32"),
        "sample_weight": RNG.uniform(0.5, 2, rows).astype("float32"),
    }


def train(model, batches, *, jit_compile):
    """Losses of the batches, and that of the last one in validation."""
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        jit_compile=jit_compile,
        run_eagerly=not jit_compile,
    )
    model.optimizer.build(model.trainable_variables)
    logs = [model.train_on_batch(each, return_dict=True) for each in batches]
    return [*logs, model.test_on_batch(batches[-1], return_dict=True)]


@pytest.mark.parametrize(
    ("make_fusion", "options", "lengths"),
    [
        (lambda: None, {"concept_dim": 4}, (8, 8)),
        (lambda: None, {"label_smoothing": 0.1}, (8, 8)),
        (lambda: BimodalFusion(8), {}, (8, 6, 8)),
    ],
)
def test_losses_and_weights_are_those_of_the_plain_step(
    small_lm, make_fusion, options, lengths
):
    batches = [make_batch(length=each) for each in lengths]
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = small_lm(
            VOCABULARY, fusion=make_fusion(), compiled=False, **options
        )
        if model.concept_head is not None:
            model.concept_head.dropout_layer.rate = 0.0
        logs = train(model, batches, jit_compile=jit_compile)
        assert model.uses_xla == jit_compile
        results.append((model, logs))
    (plain, expected), (compiled, got) = results
    for one, other in zip(expected, got, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for one, other in zip(plain.weights, compiled.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=one.path)


def test_way_of_the_step_is_saved_with_the_model(small_lm, tmp_path):
    model = small_lm(VOCABULARY, compiled=False)
    assert not model.uses_xla
    for jit_compile in (True, "auto"):
        model.compile(optimizer="sgd", jit_compile=jit_compile)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.uses_xla == model.uses_xla == (jit_compile is True)
