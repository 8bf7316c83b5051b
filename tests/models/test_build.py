"""Models from settings that name a checkpoint."""

import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from bmt_keras.errors import InputError
from bmt_keras.models import build_masked_lm
from bmt_keras.presets import PRESETS

GOLDEN = Path(__file__).parents[1] / "golden" / "albert"
WITH_HEAD, WITHOUT_HEAD = GOLDEN / "masked_lm", GOLDEN / "encoder"


def vocabulary_size(folder):
    return json.loads((folder / "config.json").read_text())["vocab_size"]


@pytest.fixture
def build():
    def build_from(folder, *, preset="notebook", more_tokens=0, **changes):
        tokenizer = SimpleNamespace(
            vocabulary_size=vocabulary_size(folder) + more_tokens,
            mask_token_id=4,
            special_token_ids=[0, 1, 2, 3, 4],
        )
        images = keras.Input((2, 2, 3))
        settings = PRESETS[preset].replace(
            text_weights=str(folder),
            **{"sequence_length": 12, "fusion_num_heads": 2, **changes},
        )
        return build_masked_lm(
            settings,
            tokenizer,
            image_tower=keras.Model(images, keras.layers.ReLU()(images)),
        )

    return build_from


def trained(model):
    return [weight.value for weight in model.trainable_weights]


def token_logits(model, image):
    rng = np.random.default_rng(image)
    return keras.ops.convert_to_numpy(
        model.token_logits(
            keras.ops.array([[2, 7, 4, 9, 3]], "int32"),
            keras.ops.ones((1, 5), "int32"),
            rng.normal(size=(1, 2, 2, 3)).astype("float32"),
        )
    )


@pytest.mark.parametrize("preset", ["notebook", "coco"])
def test_pretrained_head_makes_the_image_matter_not_yet(build, preset):
    model = build(WITH_HEAD, preset=preset, pretrained_head=True)
    np.testing.assert_allclose(
        token_logits(model, image=0), token_logits(model, image=1), atol=1e-5
    )


def test_summary_counts_as_trainable_what_is_trained(build):
    model, lines = build(WITH_HEAD, preset="coco"), []
    model.summary(print_fn=lines.append)
    count = sum(weight.shape.num_elements() for weight in trained(model))
    assert f"Trainable params: {count:,}" in "".join(lines)


def test_without_the_head_the_notebooks_model_sees_the_image(build):
    model = build(WITH_HEAD)
    assert not np.allclose(
        token_logits(model, image=0), token_logits(model, image=1), atol=1e-5
    )
    np.testing.assert_array_equal(model.head.bias, 0.0)


@pytest.mark.parametrize(
    ("folder", "changes", "match"),
    [
        (
            WITHOUT_HEAD,
            {"pretrained_head": True},
            r"no masked-LM head.*--no-pretrained",
        ),
        (WITH_HEAD, {"more_tokens": 1}, "tokens, the vocabulary has"),
        (
            WITH_HEAD,
            {"sequence_length": 300},
            "positions, fewer than `sequence_length`",
        ),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(build, folder, changes, match):
    with pytest.raises(InputError, match=match):
        build(folder, **changes)
