"""Writes the ALBERT checkpoints of this folder, and what PyTorch makes of them.

Each case is a folder as transformers' own `save_pretrained` writes it, with
random weights, and beside it an .npz of inputs and of the outputs that
transformers' PyTorch model computes. With `--check` nothing is written: the
folders are read back by transformers and the outputs compared with the stored
ones. It needs torch and transformers, the tests that read the files need
neither.

Usage: python tests/golden/albert/make.py [--check]
"""

import argparse
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertForPreTraining,
    AlbertModel,
)

HERE = Path(__file__).parent
LENGTHS = (9, 6, 3)
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    """A checkpoint: its class and configuration, and how it is saved."""

    model: type
    config: AlbertConfig
    options: dict[str, Any] = field(default_factory=dict)
    shard_size: str = "1GB"
    decoder_copies: bool = False
    architectures: bool = True


def tiny(**fields: Any) -> AlbertConfig:
    return AlbertConfig(
        max_position_embeddings=24, attention_probs_dropout_prob=0.0, **fields
    )


# Every name of the tanh GELU occurs once.
CASES = {
    "encoder": Case(
        AlbertModel,
        tiny(
            vocab_size=40,
            embedding_size=8,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=24,
            hidden_act="gelu_new",
        ),
    ),
    "masked_lm": Case(
        AlbertForMaskedLM,
        tiny(
            vocab_size=52,
            embedding_size=10,
            hidden_size=12,
            num_hidden_layers=4,
            num_hidden_groups=2,
            num_attention_heads=3,
            intermediate_size=20,
            type_vocab_size=3,
            hidden_act="gelu_pytorch_tanh",
        ),
    ),
    "hub": Case(
        AlbertForPreTraining,
        tiny(
            vocab_size=44,
            embedding_size=8,
            hidden_size=24,
            num_hidden_layers=2,
            inner_group_num=2,
            num_attention_heads=2,
            intermediate_size=28,
            hidden_act="gelu_accurate",
        ),
        decoder_copies=True,
    ),
    "sharded": Case(
        AlbertForMaskedLM,
        tiny(
            vocab_size=60,
            embedding_size=12,
            hidden_size=16,
            num_hidden_layers=4,
            num_hidden_groups=2,
            inner_group_num=2,
            num_attention_heads=4,
            intermediate_size=20,
            hidden_act="gelu_fast",
            hidden_dropout_prob=0.1,
        ),
        shard_size="12KB",
    ),
    "no_architectures": Case(
        AlbertModel,
        tiny(
            vocab_size=48,
            embedding_size=12,
            hidden_size=12,
            num_hidden_layers=2,
            num_hidden_groups=2,
            num_attention_heads=6,
            intermediate_size=16,
            type_vocab_size=1,
            hidden_act="gelu_python_tanh",
        ),
        options={"add_pooling_layer": False},
        architectures=False,
    ),
}


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Gives every parameter values that no swap leaves unnoticed."""
    rng = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        values = 0.3 * rng.normal(size=tuple(parameter.shape))
        if "norm" in name.lower() and name.endswith("weight"):
            values += 1.0
        parameter.data = torch.tensor(values, dtype=torch.float32)


def make_inputs(case: Case, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = np.arange(shape[1]) < np.array(LENGTHS)[:, None]
    token_ids = rng.integers(5, case.config.vocab_size, shape)
    token_ids[:, 0] = 2
    segment_ids = rng.integers(0, case.config.type_vocab_size, shape)
    return {
        "token_ids": (token_ids * mask).astype("int32"),
        "segment_ids": (segment_ids * mask).astype("int32"),
        "padding_mask": mask.astype("int32"),
    }


@torch.no_grad()
def compute(
    model: torch.nn.Module, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Computes states, pooled output and logits, as far as there are any."""
    model.eval()
    tensors = {k: torch.tensor(v, dtype=torch.long) for k, v in inputs.items()}
    given = {
        "input_ids": tensors["token_ids"],
        "attention_mask": tensors["padding_mask"],
    }
    segments = tensors["segment_ids"]
    states = model.base_model(**given, token_type_ids=segments)
    outputs = {"states": states.last_hidden_state}
    if states.pooler_output is not None:
        outputs["pooled"] = states.pooler_output
    if not isinstance(model, AlbertModel):
        outputs["logits"] = model(**given, token_type_ids=segments)[0]
        # A captioner knows one segment only.
        outputs["one_segment_logits"] = model(**given)[0]
    return {k: v.numpy() for k, v in outputs.items()}


def write(name: str, case: Case, seed: int) -> None:
    model = case.model(case.config, **case.options)
    randomise(model, seed)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=case.shard_size)
    if case.decoder_copies:
        copy_decoder(folder / "model.safetensors")
    if not case.architectures:
        config = json.loads((folder / "config.json").read_text())
        del config["architectures"]
        text = json.dumps(config, indent=2) + "\n"
        (folder / "config.json").write_text(text)
    inputs = make_inputs(case, seed)
    np.savez(HERE / f"{name}.npz", **inputs, **compute(model, inputs))


def copy_decoder(path: Path) -> None:
    """Stores the tied decoder once more, as converted pickles have it."""
    tensors = load_file(path)
    embedding = tensors["albert.embeddings.word_embeddings.weight"]
    tensors["predictions.decoder.weight"] = embedding.clone()
    tensors["predictions.decoder.bias"] = tensors["predictions.bias"].clone()
    save_file(tensors, path, metadata={"format": "pt"})


def check(name: str, case: Case) -> bool:
    """Compares the stored outputs with those of the stored checkpoint."""
    model = case.model.from_pretrained(HERE / name, **case.options)
    with np.load(HERE / f"{name}.npz", allow_pickle=False) as stored:
        expected = dict(stored)
    names = ("token_ids", "segment_ids", "padding_mask")
    inputs = {each: expected.pop(each) for each in names}
    found = compute(model, inputs)
    if found.keys() != expected.keys():
        print(f"{name}: expected {list(expected)}, found {list(found)}")
        return False
    largest = max(np.abs(found[k] - expected[k]).max() for k in expected)
    print(f"{name}: largest difference {largest:.1e} in {', '.join(expected)}")
    return bool(largest <= TOLERANCE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        results = [check(name, case) for name, case in CASES.items()]
        return 0 if all(results) else 1
    for seed, (name, case) in enumerate(CASES.items()):
        write(name, case, seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
