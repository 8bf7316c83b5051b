"""ALBERT's checkpoints in Hugging Face's layout, as KerasHub's ALBERT."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np

from bmt_keras.errors import InputError
from bmt_keras.models.checkpoint_files import (
    StoredTensor,
    check_tensors,
    list_tensors,
    read_config,
)
from bmt_keras.models.pretrained_head import MaskedLMHeadWeights

# Names of one function: the tanh approximation of the GELU.
_TANH_GELUS = (
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_python_tanh",
    "gelu_fast",
    "gelu_accurate",
)

# What AlbertBackbone can do: field, its value if left out, what it may be.
_FIXED: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("model_type", None, ("albert",)),
    ("hidden_act", "gelu_new", _TANH_GELUS),
    ("layer_norm_eps", 1e-12, (1e-12,)),
    ("position_embedding_type", "absolute", ("absolute",)),
)

# Field of config.json: AlbertBackbone's argument, transformers' default.
_SIZES = {
    "vocab_size": ("vocabulary_size", 30000),
    "embedding_size": ("embedding_dim", 128),
    "hidden_size": ("hidden_dim", 4096),
    "num_hidden_layers": ("num_layers", 12),
    "num_hidden_groups": ("num_groups", 1),
    "num_attention_heads": ("num_heads", 64),
    "intermediate_size": ("intermediate_dim", 16384),
    "inner_group_num": ("num_inner_repetitions", 1),
    "max_position_embeddings": ("max_sequence_length", 512),
    "type_vocab_size": ("num_segments", 2),
}

# Tensor of the checkpoint, variable that takes it, the tensor's shape.
_Port = tuple[str, str, tuple[int, ...]]

# Module of the checkpoint, variable that takes its weight, the weight's shape.
_Row = tuple[str, str, tuple[str, ...]]
_V, _E, _H = "vocab_size", "embedding_size", "hidden_size"
_P, _S, _I = "max_position_embeddings", "type_vocab_size", "intermediate_size"
_EMBEDDING_ROWS: tuple[_Row, ...] = (
    ("word_embeddings", "token_embedding/embeddings", (_V, _E)),
    ("position_embeddings", "position_embedding/embeddings", (_P, _E)),
    ("token_type_embeddings", "segment_embedding/embeddings", (_S, _E)),
    ("LayerNorm", "embeddings_layer_norm/gamma", (_E,)),
)
_PROJECTION_ROWS: tuple[_Row, ...] = (
    ("embedding_hidden_mapping_in", "embedding_projection/kernel", (_H, _E)),
)
_ATTENTION = "self_attention_layer"
_LAYER_ROWS: tuple[_Row, ...] = (
    ("attention.query", f"{_ATTENTION}/query/kernel", (_H, _H)),
    ("attention.key", f"{_ATTENTION}/key/kernel", (_H, _H)),
    ("attention.value", f"{_ATTENTION}/value/kernel", (_H, _H)),
    ("attention.dense", f"{_ATTENTION}/attention_output/kernel", (_H, _H)),
    ("attention.LayerNorm", f"{_ATTENTION}_norm/gamma", (_H,)),
    ("ffn", "feedforward_intermediate_dense/kernel", (_I, _H)),
    ("ffn_output", "feedforward_output_dense/kernel", (_H, _I)),
    ("full_layer_layer_norm", "feedforward_layer_norm/gamma", (_H,)),
)
_POOLER_ROWS: tuple[_Row, ...] = (("pooler", "pooled_dense/kernel", (_H, _H)),)
# Here the variables are the fields of MaskedLMHeadWeights.
_HEAD_ROWS: tuple[_Row, ...] = (
    ("dense", "kernel", (_E, _H)),
    ("LayerNorm", "gamma", (_E,)),
)


@dataclass(frozen=True, eq=False)
class AlbertCheckpoint:
    """A pretrained ALBERT.

    Attributes:
        text_tower: A `keras_hub.models.AlbertBackbone`.
        head: Its masked language model's head, None if it came without.
    """

    text_tower: keras.Model
    head: MaskedLMHeadWeights | None


def read_albert(
    folder: Path, *, dropout: float | None = None
) -> AlbertCheckpoint:
    """Reads an ALBERT in Hugging Face's layout.

    It may be saved from `AlbertModel`, `AlbertForMaskedLM`,
    `AlbertForPreTraining` or a model with another head, which is left out.
    Without a pooler, the backbone's has fresh weights.

    Args:
        folder: Holds config.json and safetensors.
        dropout: Dropout rate; None for the checkpoint's `hidden_dropout_prob`.

    Returns:
        The text tower and, if the checkpoint has it, the head.

    Raises:
        InputError: The configuration is one that `AlbertBackbone` cannot
            follow, or tensors are missing, misshapen or damaged.
    """
    path, config = folder / "config.json", read_config(folder)
    sizes = _read_sizes(path, config)
    if dropout is None:
        dropout = _read_dropout(path, config)
    stored = list_tensors(folder)
    tensors = {_plain(name): tensor for name, tensor in stored.items()}
    ports = _plan_tower(tensors, sizes)
    head_ports = _plan_head(tensors, sizes)
    shapes = {name: shape for name, _, shape in (*ports, *head_ports)}
    check_tensors(tensors, shapes, folder=folder)
    _check_rest(tensors, shapes, folder)
    text_tower = keras_hub.models.AlbertBackbone(
        **{argument: sizes[field] for field, (argument, _) in _SIZES.items()},
        dropout=dropout,
        name="text_tower",
    )
    variables = {variable.path: variable for variable in text_tower.variables}
    for name, values in _read(tensors, ports).items():
        # Attention keeps its heads in a dimension of their own.
        variables[name].assign(np.reshape(values, variables[name].shape))
    head = _read(tensors, head_ports)
    return AlbertCheckpoint(
        text_tower, MaskedLMHeadWeights(**head) if head else None
    )


def _read_sizes(path: Path, config: Mapping[str, Any]) -> dict[str, int]:
    for field, default, accepted in _FIXED:
        value = config.get(field, default)
        if value not in accepted:
            names = ", ".join(map(str, accepted))
            rule = f"`{field}` must be one of {names}"
            raise _refusal(path, rule, {field: value})
    sizes = {}
    for field, (_, default) in _SIZES.items():
        value = config.get(field, default)
        if type(value) is not int or value < 1:
            rule = f"`{field}` must be a positive whole number"
            raise _refusal(path, rule, {field: value})
        sizes[field] = value
    for divisor, size in (
        ("num_hidden_groups", "num_hidden_layers"),
        ("num_attention_heads", "hidden_size"),
    ):
        if sizes[size] % sizes[divisor]:
            found = {name: sizes[name] for name in (divisor, size)}
            raise _refusal(path, f"`{divisor}` must divide `{size}`", found)
    return sizes


def _read_dropout(path: Path, config: Mapping[str, Any]) -> float:
    field = "hidden_dropout_prob"
    value = config.get(field, 0.0)
    if type(value) not in (int, float) or not 0 <= value < 1:
        rule = f"`{field}` must be a number in [0, 1)"
        raise _refusal(path, rule, {field: value})
    return float(value)


def _refusal(path: Path, rule: str, found: Mapping[str, Any]) -> InputError:
    received = ", ".join(f"{name}={value!r}" for name, value in found.items())
    return InputError(f"{path}: {rule}. Received: {received}.")


def _plain(name: str) -> str:
    """The name without a whole model's prefix and with today's ending."""
    name = name.removeprefix("albert.")
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _plan_tower(
    tensors: Mapping[str, StoredTensor], sizes: Mapping[str, int]
) -> list[_Port]:
    ports = _plan(_EMBEDDING_ROWS, sizes, source="embeddings.")
    ports += _plan(_PROJECTION_ROWS, sizes, source="encoder.")
    for group in range(sizes["num_hidden_groups"]):
        for inner in range(sizes["inner_group_num"]):
            ports += _plan(
                _LAYER_ROWS,
                sizes,
                source=f"encoder.albert_layer_groups.{group}"
                f".albert_layers.{inner}.",
                target=f"group_{group}_inner_layer_{inner}/",
            )
    if any(name.startswith("pooler.") for name in tensors):
        ports += _plan(_POOLER_ROWS, sizes)
    return ports


def _plan_head(
    tensors: Mapping[str, StoredTensor], sizes: Mapping[str, int]
) -> list[_Port]:
    if not any(name.startswith("predictions.") for name in tensors):
        return []
    # transformers adds the decoder's bias alone where it has one of its own.
    own = "predictions.decoder.bias"
    name = own if own in tensors else "predictions.bias"
    token_bias = (name, "token_bias", (sizes["vocab_size"],))
    return [*_plan(_HEAD_ROWS, sizes, source="predictions."), token_bias]


def _plan(
    rows: Iterable[_Row],
    sizes: Mapping[str, int],
    *,
    source: str = "",
    target: str = "",
) -> list[_Port]:
    """Lists the tensors of modules, each with its weight and its bias."""
    ports = []
    for module, weight, fields in rows:
        shape = tuple(sizes[field] for field in fields)
        ports.append((f"{source}{module}.weight", target + weight, shape))
        bias = weight.replace("kernel", "bias").replace("gamma", "beta")
        if bias != weight:
            ports.append((f"{source}{module}.bias", target + bias, shape[:1]))
    return ports


def _check_rest(
    tensors: Mapping[str, StoredTensor], read: Container[str], folder: Path
) -> None:
    """Refuses a checkpoint that would lose what its model computes with."""
    for name in tensors:
        if name.startswith("encoder.") and name not in read:
            raise InputError(
                f"{folder}: expected the layers of config.json and "
                f"no more, found {name}."
            )
    decoder = tensors.get("predictions.decoder.weight")
    embedding = tensors["embeddings.word_embeddings.weight"]
    if decoder and not np.array_equal(decoder.read(), embedding.read()):
        raise InputError(
            f"{folder}: expected a head tied to the token embedding, found "
            f"{decoder.name} with values of its own."
        )


def _read(
    tensors: Mapping[str, StoredTensor], ports: Iterable[_Port]
) -> dict[str, Any]:
    values = {variable: tensors[name].read() for name, variable, _ in ports}
    # PyTorch keeps a dense layer's kernel as (outputs, inputs).
    return {
        variable: array.T if variable.endswith("kernel") else array
        for variable, array in values.items()
    }
