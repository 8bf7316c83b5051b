import json
import re
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from keras import ops
from transformers import AlbertConfig

from bmt_keras.errors import InputError
from bmt_keras.models import load_albert

GOLDEN = Path(__file__).parents[1] / "golden" / "albert"
# Of each case what its checkpoint has besides the layers.
CASES = {
    "encoder": {"pooled"},
    "masked_lm": {"logits"},
    "hub": {"pooled", "logits"},
    "sharded": {"logits"},
    "no_architectures": set(),
}


def read_golden(case):
    with np.load(GOLDEN / f"{case}.npz", allow_pickle=False) as arrays:
        golden = dict(arrays)
    inputs = ("token_ids", "segment_ids", "padding_mask")
    return {name: golden.pop(name) for name in inputs}, golden


def assert_golden(text_tower, case):
    inputs, golden = read_golden(case)
    outputs = text_tower(inputs)
    states = ops.convert_to_numpy(outputs["sequence_output"])
    tokens = inputs["padding_mask"] == 1
    np.testing.assert_allclose(
        states[tokens], golden["states"][tokens], atol=1e-4
    )
    if "pooled" in CASES[case]:
        np.testing.assert_allclose(
            outputs["pooled_output"], golden["pooled"], atol=1e-4
        )


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_pytorchs(case):
    # What the head gives is compared where a model has taken it.
    text_tower = load_albert(str(GOLDEN / case))
    assert text_tower.name == "text_tower"
    assert_golden(text_tower, case)
    _, golden = read_golden(case)
    assert CASES[case] == golden.keys() & {"pooled", "logits"}


def test_old_names_of_layer_norms_are_read(edited):
    def rename(stored):
        names = {}
        for name in stored:
            old = name
            if "norm" in name.lower():
                old = name.replace(".weight", ".gamma").replace(
                    ".bias", ".beta"
                )
            names[old] = stored[name]
        assert sum(name.endswith(".gamma") for name in names) == 6
        return names

    assert_golden(load_albert(edited("hub", tensors=rename)), "hub")


def test_head_of_another_task_and_old_buffers_are_left_out(edited):
    def add(stored):
        return {
            **stored,
            "albert.embeddings.position_ids": np.arange(24)[None],
            "classifier.weight": np.ones((3, 24), "float32"),
        }

    assert_golden(load_albert(edited("hub", tensors=add)), "hub")


@pytest.mark.parametrize(
    ("case", "name", "shape"),
    [
        ("encoder", "pooler.bias", (16,)),
        ("encoder", "embeddings.LayerNorm.weight", (8,)),
        ("masked_lm", "albert.encoder.embedding_hidden_mapping_in.bias", (12,)),
    ],
)
def test_missing_tensor_is_named(edited, case, name, shape):
    def remove(stored):
        del stored[name]
        return stored

    fault = f"at fault: {name.removeprefix('albert.')} {shape} is missing."
    with pytest.raises(InputError, match=re.escape(fault)):
        load_albert(edited(case, tensors=remove))


def test_layers_beyond_the_configured_ones_are_refused(edited):
    folder = edited("no_architectures", config={"num_hidden_groups": 1})
    match = "found encoder.albert_layer_groups.1.albert_layers.0"
    with pytest.raises(InputError, match=match):
        load_albert(folder)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("model_type", None, "must be one of albert. Received: model_type"),
        ("model_type", "bert", "must be one of albert. Received: model_type"),
        ("hidden_act", "gelu", "gelu_new, gelu_pytorch_tanh.*'gelu'"),
        ("hidden_act", "relu", "Received: hidden_act='relu'"),
        ("layer_norm_eps", 1e-5, "must be one of 1e-12. .*=1e-05"),
        ("position_embedding_type", "relative_key", "must be one of absolute"),
        ("num_hidden_groups", 2, "must divide `num_hidden_layers`.*=2, .*=3"),
        ("num_attention_heads", 5, "must divide `hidden_size`.*=5, .*=16"),
        ("hidden_size", "16", "positive whole number. Received: .*='16'"),
        ("hidden_size", 16.0, "positive whole number. Received: .*=16.0"),
        ("num_hidden_layers", True, "positive whole number"),
        ("vocab_size", None, "positive whole number"),
        ("inner_group_num", 0, "positive whole number"),
        ("hidden_dropout_prob", 1, r"a number in \[0, 1\)"),
        ("hidden_dropout_prob", "0", r"a number in \[0, 1\)"),
    ],
)
def test_config_that_cannot_be_followed_is_refused(edited, field, value, match):
    folder = edited("encoder", config={field: value})
    with pytest.raises(InputError, match=f"config.json: `.*{match}") as error:
        load_albert(folder)
    assert field in str(error.value)


def test_fields_at_transformers_defaults_may_be_left_out(edited):
    defaults = AlbertConfig().to_dict()
    path = GOLDEN / "encoder" / "config.json"
    config = json.loads(path.read_text())
    same = {k for k, v in config.items() if v == defaults.get(k)}
    assert {"num_hidden_groups", "inner_group_num", "type_vocab_size"} <= same
    assert {"hidden_act", "layer_norm_eps", "hidden_dropout_prob"} <= same
    folder = edited("encoder", drop=same - {"model_type"})
    assert_golden(load_albert(folder), "encoder")


@pytest.mark.parametrize(
    "field",
    [
        *("vocab_size", "embedding_size", "hidden_size", "intermediate_size"),
        *("max_position_embeddings", "num_attention_heads"),
    ],
)
def test_left_out_size_takes_transformers_default(edited, field):
    default = getattr(AlbertConfig(), field)
    with pytest.raises(InputError, match=rf"\b{default}\b"):
        load_albert(edited("encoder", drop=[field]))


def test_left_out_number_of_layers_takes_transformers_default(edited):
    folder = edited("encoder", drop=["num_hidden_layers"])
    text_tower = load_albert(folder)
    assert text_tower.num_layers == AlbertConfig().num_hidden_layers


@pytest.mark.parametrize(("dropout", "expected"), [(None, 0.1), (0.3, 0.3)])
def test_dropout_is_the_checkpoints_unless_given(dropout, expected):
    text_tower = load_albert(str(GOLDEN / "sharded"), dropout=dropout)
    assert text_tower.dropout == expected


def test_hub_address_is_downloaded_and_read(monkeypatch):
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda repo, **options: str(GOLDEN / repo.split("/")[1]),
    )
    text_tower = load_albert("hf://albert/masked_lm@main")
    assert_golden(text_tower, "masked_lm")


@pytest.mark.parametrize(("dropout", "expected"), [(None, 0.2), (0.3, 0.3)])
def test_folder_of_kerashub_is_read_by_kerashub(
    tiny_albert, tmp_path, dropout, expected
):
    saved = tiny_albert(20, dropout=0.2)
    saved.save_to_preset(str(tmp_path / "preset"))
    text_tower = load_albert(str(tmp_path / "preset"), dropout=dropout)
    assert text_tower.name == "text_tower"
    assert text_tower.dropout == expected
    pairs = zip(text_tower.weights, saved.weights, strict=True)
    for found, weight in pairs:
        np.testing.assert_array_equal(found, weight)


def test_unknown_preset_is_one_sentence():
    with pytest.raises(InputError, match="'no_such_albert' cannot be loaded"):
        load_albert("no_such_albert")
