"""A small model that sees an image of four cells, and changed checkpoints."""

import json
import shutil
from pathlib import Path

import keras
import keras_hub
import pytest
from safetensors.numpy import load_file, save_file

from bmt_keras.layers import CrossAttentionFusion, TokenMasking
from bmt_keras.models import BimodalMaskedLM

GOLDEN = Path(__file__).parents[1] / "golden" / "albert"


def _tiny_albert(vocabulary_size, **changes):
    sizes = {"num_layers": 2, "num_heads": 2, "embedding_dim": 8}
    sizes |= {"hidden_dim": 16, "intermediate_dim": 16}
    return keras_hub.models.AlbertBackbone(
        vocabulary_size=vocabulary_size,
        **{**sizes, "max_sequence_length": 12, "dropout": 0.0, **changes},
        name="text_tower",
    )


def _small_lm(vocabulary_size, *, fusion=None, compiled=True, **options):
    keras.utils.set_random_seed(1)
    model = BimodalMaskedLM(
        _tiny_albert(vocabulary_size, num_layers=1),
        fusion
        or CrossAttentionFusion(
            num_layers=1,
            num_heads=2,
            intermediate_dim=16,
            gate_initializer=None,
        ),
        masking=TokenMasking(4, [0, 1, 2, 3], seed=3),
        image_embedding_shape=(2, 2, 6),
        max_caption_tokens=10,
        **options,
    )
    if compiled:
        model.compile(
            optimizer=keras.optimizers.AdamW(1e-2, weight_decay=0.0),
            jit_compile=False,
            run_eagerly=True,
        )
        model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def small_lm():
    """Builds a `BimodalMaskedLM`, compiled or not, with further options."""
    return _small_lm


@pytest.fixture
def tiny_albert():
    """Builds an ALBERT of two small layers, with further sizes."""
    return _tiny_albert


@pytest.fixture
def edited(tmp_path):
    """Copies a checkpoint of one file with tensors or fields changed."""

    def edit(case, *, tensors=lambda stored: stored, config=None, drop=()):
        folder = Path(shutil.copytree(GOLDEN / case, tmp_path / case))
        path = folder / "model.safetensors"
        save_file(tensors(load_file(path)), path)
        fields = json.loads((folder / "config.json").read_text())
        fields = {**fields, **(config or {})}
        fields = {k: v for k, v in fields.items() if k not in drop}
        (folder / "config.json").write_text(json.dumps(fields))
        return str(folder)

    return edit
