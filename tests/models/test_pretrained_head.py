import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from bmt_keras.errors import InputError
from bmt_keras.layers import BimodalFusion, CrossAttentionFusion, TokenMasking
from bmt_keras.models import BimodalMaskedLM, load_albert, load_pretrained_head

GOLDEN = Path(__file__).parents[1] / "golden" / "albert"
GRID = (2, 3, 5)


def make_model(case, fusion, *, activation=None):
    keras.utils.set_random_seed(1)
    tower = load_albert(str(GOLDEN / case))
    if fusion == "concat":
        layer = BimodalFusion(tower.embedding_dim, activation)
    else:
        layer = CrossAttentionFusion(
            num_layers=2,
            num_heads=2,
            intermediate_dim=16,
            dropout=0.2,
            name="fusion",
        )
    return BimodalMaskedLM(
        tower,
        layer,
        masking=TokenMasking(4, [0, 1, 2, 3, 4], seed=3),
        image_embedding_shape=GRID,
    )


def make_pretrained(case, fusion):
    model = make_model(case, fusion)
    load_pretrained_head(model, str(GOLDEN / case))
    return model


def make_images(rows, *, seed):
    shape = (rows, *GRID)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def read_golden(case):
    with np.load(GOLDEN / f"{case}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def compute_logits(model, golden, *, seed):
    images = make_images(len(golden["token_ids"]), seed=seed)
    arrays = golden["token_ids"], golden["padding_mask"], images
    tensors = map(ops.convert_to_tensor, arrays)
    return ops.convert_to_numpy(model.token_logits(*tensors))


@pytest.mark.parametrize("fusion", ["concat", "cross_attention"])
@pytest.mark.parametrize("case", ["masked_lm", "hub", "sharded"])
def test_fresh_model_is_the_pretrained_one_whatever_the_image(case, fusion):
    golden, model = read_golden(case), make_pretrained(case, fusion)
    tokens = golden["padding_mask"] == 1
    for seed in (0, 1):
        logits = compute_logits(model, golden, seed=seed)
        np.testing.assert_allclose(
            logits[tokens], golden["one_segment_logits"][tokens], atol=1e-4
        )


@pytest.mark.parametrize("fusion", ["concat", "cross_attention"])
def test_one_training_step_lets_the_image_in(fusion):
    golden = read_golden("masked_lm")
    model = make_pretrained("masked_lm", fusion)
    tokens = golden["padding_mask"] == 1

    def difference():
        one, other = (
            compute_logits(model, golden, seed=seed)[tokens] for seed in (0, 1)
        )
        return np.abs(one - other).max()

    assert difference() < 1e-5
    model.compile(optimizer=keras.optimizers.Adam(1e-2), run_eagerly=True)
    batch = {
        "token_ids": golden["token_ids"],
        "padding_mask": golden["padding_mask"],
        "image_embedding": make_images(3, seed=2),
    }
    model.train_on_batch(batch)
    assert difference() > 1e-2


def test_decoders_own_bias_is_the_one_that_counts(edited):
    bias = np.arange(44, dtype="float32")
    folder = edited(
        "hub",
        tensors=lambda stored: {**stored, "predictions.decoder.bias": bias},
    )
    model = make_model("hub", "concat")
    load_pretrained_head(model, folder)
    np.testing.assert_array_equal(model.head.bias, bias)


def test_decoder_with_weights_of_its_own_is_refused(edited):
    def untie(stored):
        decoder = stored["predictions.decoder.weight"] + 1
        return {**stored, "predictions.decoder.weight": decoder}

    model = make_model("hub", "concat")
    with pytest.raises(InputError, match="head tied to the token embedding"):
        load_pretrained_head(model, edited("hub", tensors=untie))


@pytest.mark.parametrize(
    ("name", "values", "fault"),
    [
        ("predictions.bias", None, "predictions.bias (52,) is missing."),
        (
            "predictions.dense.weight",
            np.zeros((12, 10), "float32"),
            "predictions.dense.weight must be (10, 12), is (12, 10) in model.s",
        ),
    ],
)
def test_faulty_head_is_named_and_changes_nothing(edited, name, values, fault):
    def change(stored):
        del stored[name]
        return stored if values is None else {**stored, name: values}

    model = make_model("masked_lm", "concat")
    before = model.get_weights()
    with pytest.raises(InputError, match=re.escape(fault)):
        load_pretrained_head(model, edited("masked_lm", tensors=change))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("address", [str(GOLDEN / "encoder"), "albert_base"])
def test_checkpoint_without_a_head_is_refused(address):
    model = make_model("encoder", "concat")
    with pytest.raises(InputError, match=r"no masked-LM head.*--no-pretrained"):
        load_pretrained_head(model, address)


def test_fusion_with_an_activation_of_its_own_is_refused():
    model = make_model("masked_lm", "concat", activation="relu")
    with pytest.raises(ValueError, match="`fusion` must have no activation"):
        load_pretrained_head(model, str(GOLDEN / "masked_lm"))
