import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from bmt_keras.layers import BimodalFusion, CrossAttentionFusion, TokenMasking
from bmt_keras.models import BimodalMaskedLM, load_albert, load_pretrained_head

GOLDEN = Path(__file__).parents[1] / "golden" / "albert"
GRID = (2, 3, 5)


def make_model(checkpoint, fusion, *, activation=None):
    keras.utils.set_random_seed(1)
    tower = checkpoint.text_tower
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
    checkpoint = load_albert(str(GOLDEN / case))
    model = make_model(checkpoint, fusion)
    load_pretrained_head(model, checkpoint.head)
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


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("kernel", (10, 12)),
        ("bias", (12,)),
        ("gamma", (11,)),
        ("beta", (1,)),
        ("token_bias", (51,)),
    ],
)
def test_head_of_other_sizes_is_refused_and_changes_nothing(name, shape):
    checkpoint = load_albert(str(GOLDEN / "masked_lm"))
    model = make_model(checkpoint, "concat")
    before = model.get_weights()
    wrong = np.zeros(shape, "float32")
    head = dataclasses.replace(checkpoint.head, **{name: wrong})
    with pytest.raises(ValueError, match=rf"`head.{name}` must have the shape"):
        load_pretrained_head(model, head)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_fusion_with_an_activation_of_its_own_is_refused():
    checkpoint = load_albert(str(GOLDEN / "masked_lm"))
    model = make_model(checkpoint, "concat", activation="relu")
    with pytest.raises(ValueError, match="`fusion` must have no activation"):
        load_pretrained_head(model, checkpoint.head)
