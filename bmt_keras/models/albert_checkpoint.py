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
    HUB_PREFIX,
    StoredTensor,
    check_tensors,
    find_checkpoint,
    list_tensors,
    read_config,
)
from bmt_keras.models.pretrained_head import MaskedLMHeadWeights

# Names of one function: the tanh approximation of the GELU.
_TANH_GELUS = (
    *("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh"),
    *("gelu_fast", "gelu_accurate"),
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

# Sizes by letter: the dimensions of a weight in PyTorch's order.
_LETTERS = {
    "V": "vocab_size",
    "E": "embedding_size",
    "H": "hidden_size",
    "I": "intermediate_size",
    "P": "max_position_embeddings",
    "S": "type_vocab_size",
}
# Module of the checkpoint, variable that takes its weight, the weight's shape.
_Row = tuple[str, str, str]
_INPUT = "encoder.embedding_hidden_mapping_in"
_TOWER_ROWS: tuple[_Row, ...] = (
    ("embeddings.word_embeddings", "token_embedding/embeddings", "VE"),
    ("embeddings.position_embeddings", "position_embedding/embeddings", "PE"),
    ("embeddings.token_type_embeddings", "segment_embedding/embeddings", "SE"),
    ("embeddings.LayerNorm", "embeddings_layer_norm/gamma", "E"),
    (_INPUT, "embedding_projection/kernel", "HE"),
)
_LAYER_ROWS: tuple[_Row, ...] = (
    ("attention.query", "self_attention_layer/query/kernel", "HH"),
    ("attention.key", "self_attention_layer/key/kernel", "HH"),
    ("attention.value", "self_attention_layer/value/kernel", "HH"),
    ("attention.dense", "self_attention_layer/attention_output/kernel", "HH"),
    ("attention.LayerNorm", "self_attention_layer_norm/gamma", "H"),
    ("ffn", "feedforward_intermediate_dense/kernel", "IH"),
    ("ffn_output", "feedforward_output_dense/kernel", "HI"),
    ("full_layer_layer_norm", "feedforward_layer_norm/gamma", "H"),
)
_POOLER_ROW: _Row = ("pooler", "pooled_dense/kernel", "HH")
# Here the variables are the fields of MaskedLMHeadWeights.
_HEAD_ROWS: tuple[_Row, ...] = (
    ("predictions.dense", "kernel", "EH"),
    ("predictions.LayerNorm", "gamma", "E"),
)


@dataclass(frozen=True, eq=False)
class AlbertCheckpoint:
    """A pretrained `keras_hub.models.AlbertBackbone` and its head.

    Attributes:
        text_tower: The backbone.
        head: Its masked language model's head, None if it came without.
    """

    text_tower: keras.Model
    head: MaskedLMHeadWeights | None


def load_albert(
    address: str, *, dropout: float | None = None
) -> AlbertCheckpoint:
    """Loads a pretrained ALBERT.

    In Hugging Face's layout it may be saved from `AlbertModel`,
    `AlbertForMaskedLM`, `AlbertForPreTraining` or a model with another head,
    which is left out. Without a pooler, the backbone's has fresh weights.

    Args:
        address: A local folder in Hugging Face's layout or in KerasHub's,
            `hf://organisation/name` with or without `@revision`, or what else
            KerasHub knows: a preset's name or a kaggle:// address.
        dropout: Dropout rate; None for the checkpoint's own.

    Raises:
        InputError: It cannot be found, read or followed.
    """
    if address.startswith(HUB_PREFIX) or Path(address).is_dir():
        folder = find_checkpoint(address)
        # KerasHub's layout has a config.json too, that of the Keras object.
        if "registered_name" not in read_config(folder):
            return _read_folder(folder, dropout)
    options = {} if dropout is None else {"dropout": dropout}
    try:
        text_tower = keras_hub.models.AlbertBackbone.from_preset(
            address, name="text_tower", **options
        )
    except Exception as error:
        # Hubs' clients raise errors of many kinds for what is one case here.
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"The pretrained ALBERT {address!r} cannot be loaded "
            f"({type(error).__name__}: {reason}); give a local folder by "
            "--text-weights, or 'random'."
        ) from error
    return AlbertCheckpoint(text_tower, None)


def _read_folder(folder: Path, dropout: float | None) -> AlbertCheckpoint:
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
        rule = f"`{field}` must be one of {', '.join(map(str, accepted))}"
        _require(value in accepted, path, rule, {field: value})
    sizes = {}
    for field, (_, default) in _SIZES.items():
        sizes[field] = size = config.get(field, default)
        # True is an int, too.
        is_size = type(size) is int and size >= 1
        rule = f"`{field}` must be a positive whole number"
        _require(is_size, path, rule, {field: size})
    for divisor, field in (
        ("num_hidden_groups", "num_hidden_layers"),
        ("num_attention_heads", "hidden_size"),
    ):
        found = {name: sizes[name] for name in (divisor, field)}
        divides = sizes[field] % sizes[divisor] == 0
        _require(divides, path, f"`{divisor}` must divide `{field}`", found)
    return sizes


def _read_dropout(path: Path, config: Mapping[str, Any]) -> float:
    field = "hidden_dropout_prob"
    value = config.get(field, 0.0)
    is_rate = type(value) in (int, float) and 0 <= value < 1
    rule = f"`{field}` must be a number in [0, 1)"
    _require(is_rate, path, rule, {field: value})
    return float(value)


def _require(
    is_met: bool, path: Path, rule: str, found: Mapping[str, Any]
) -> None:
    if not is_met:
        received = ", ".join(f"{name}={each!r}" for name, each in found.items())
        raise InputError(f"{path}: {rule}. Received: {received}.")


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
    ports = _plan(_TOWER_ROWS, sizes)
    for group in range(sizes["num_hidden_groups"]):
        for inner in range(sizes["inner_group_num"]):
            source = f"encoder.albert_layer_groups.{group}.albert_layers."
            source += f"{inner}."
            target = f"group_{group}_inner_layer_{inner}/"
            ports += _plan(_LAYER_ROWS, sizes, source=source, target=target)
    if any(name.startswith("pooler.") for name in tensors):
        ports += _plan([_POOLER_ROW], sizes)
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
    return [*_plan(_HEAD_ROWS, sizes), token_bias]


def _plan(
    rows: Iterable[_Row],
    sizes: Mapping[str, int],
    *,
    source: str = "",
    target: str = "",
) -> list[_Port]:
    """Lists the tensors of modules, each with its weight and its bias."""
    ports = []
    for module, weight, letters in rows:
        shape = tuple(sizes[_LETTERS[letter]] for letter in letters)
        ports.append((f"{source}{module}.weight", target + weight, shape))
        bias = weight.replace("kernel", "bias").replace("gamma", "beta")
        if bias != weight:  # an embedding has none
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
