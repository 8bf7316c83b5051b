"""ALBERT's checkpoints in Hugging Face's layout, as KerasHub's ALBERT."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np

from bmt_keras.errors import InputError
from bmt_keras.models.bimodal_masked_lm import BimodalMaskedLM
from bmt_keras.models.checkpoint_files import (
    CHECKPOINT_FILES,
    HUB_PREFIX,
    find_folder,
    list_tensors,
    read_object,
    read_tensors,
)

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

# What a model with a head puts before the names of its encoder's tensors.
_PREFIX = "albert."
# AlbertBackbone's layer: the checkpoint's module. Inner layers have the last 8.
_MODULES = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    "embeddings_layer_norm": "embeddings.LayerNorm",
    "embedding_projection": "encoder.embedding_hidden_mapping_in",
    "pooled_dense": "pooler",
    "self_attention_layer/query": "attention.query",
    "self_attention_layer/key": "attention.key",
    "self_attention_layer/value": "attention.value",
    "self_attention_layer/attention_output": "attention.dense",
    "self_attention_layer_norm": "attention.LayerNorm",
    "feedforward_intermediate_dense": "ffn",
    "feedforward_output_dense": "ffn_output",
    "feedforward_layer_norm": "full_layer_layer_norm",
}
_INNER_LAYER = re.compile(r"group_(\d+)_inner_layer_(\d+)/")
_INNER_MODULE = r"encoder.albert_layer_groups.\1.albert_layers.\2."


def load_albert(address: str, *, dropout: float | None = None) -> keras.Model:
    """Loads a pretrained ALBERT.

    In Hugging Face's layout it may be an `AlbertModel`, `AlbertForMaskedLM`,
    `AlbertForPreTraining` or one with another head, which is left out: see
    `load_pretrained_head`. Without a pooler, the backbone's has fresh weights.

    Args:
        address: A local folder in Hugging Face's layout or in KerasHub's,
            `hf://organisation/name` with or without `@revision`, or what else
            KerasHub knows: a preset's name or a kaggle:// address.
        dropout: Dropout rate; None for the checkpoint's own.

    Returns:
        A `keras_hub.models.AlbertBackbone`.

    Raises:
        InputError: It cannot be found, read or followed.
    """
    options = {} if dropout is None else {"dropout": dropout}
    if folder := _find_checkpoint(address):
        return _read_folder(folder, options)
    try:
        return keras_hub.models.AlbertBackbone.from_preset(
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


def load_pretrained_head(model: BimodalMaskedLM, address: str) -> None:
    """Makes a fresh bimodal model the pretrained one, whatever the image.

    A fusion that is the head's dense layer takes its weights into the rows of
    the token states, and zeros into those of the image. With another, such as
    a `CrossAttentionFusion` whose gates start at zero, the model's head takes
    them all. Either way training lets the image in from the first step.

    Args:
        model: Not trained yet, with the text tower of the same checkpoint.
        address: A checkpoint with a masked-LM head, as for `load_albert`.

    Raises:
        InputError: There is no head, or it cannot be read or followed.
        ValueError: The fusion has an activation of its own.
    """
    dense = model.fusion if model.fusion.is_projection else model.head.dense
    if dense.activation is not keras.activations.linear:
        raise ValueError(
            "`fusion` must have no activation to take a pretrained head. "
            f"Received: activation={dense.activation}."
        )
    folder = _find_checkpoint(address)
    tensors = list_tensors(folder, prefix=_PREFIX) if folder else {}
    if folder is None or not _has(tensors, "predictions."):
        raise InputError(
            f"The pretrained ALBERT {address!r} has no masked-LM head "
            "(`predictions.*`); give a checkpoint that has one, or "
            "--no-pretrained-head."
        )
    decoder = tensors.get("predictions.decoder.weight")
    embedding = tensors.get("embeddings.word_embeddings.weight")
    if (
        decoder
        and embedding
        and not np.array_equal(decoder.read(), embedding.read())
    ):
        raise InputError(
            f"{folder}: expected a head tied to the token embedding, found "
            f"{decoder.name} with values of its own."
        )
    # transformers adds the decoder's bias alone where it has one of its own.
    bias = "predictions.decoder.bias"
    variables = {
        "predictions.dense.bias": dense.bias,
        "predictions.LayerNorm.weight": model.head.layer_norm.gamma,
        "predictions.LayerNorm.bias": model.head.layer_norm.beta,
        bias if bias in tensors else "predictions.bias": model.head.bias,
    }
    kernel, hidden_dim = "predictions.dense.weight", model.text_tower.hidden_dim
    shapes = {name: tuple(each.shape) for name, each in variables.items()}
    shapes[kernel] = (model.text_tower.embedding_dim, hidden_dim)
    arrays = read_tensors(tensors, shapes, folder=folder)
    for name, variable in variables.items():
        variable.assign(arrays[name])
    # With zeros for the image a projection gives the pretrained head's states.
    image_rows = dense.kernel.shape[0] - hidden_dim
    dense.kernel.assign(np.pad(arrays[kernel].T, ((0, image_rows), (0, 0))))


def _find_checkpoint(address: str) -> Path | None:
    """The local folder of a checkpoint, None if it is not Hugging Face's."""
    if not address.startswith(HUB_PREFIX) and not Path(address).is_dir():
        return None
    folder = find_folder(address, CHECKPOINT_FILES)
    # KerasHub's layout has a config.json too, that of the Keras object.
    config = read_object(folder / "config.json")
    return None if "registered_name" in config else folder


def _read_folder(folder: Path, options: Mapping[str, Any]) -> keras.Model:
    arguments = _read_arguments(folder / "config.json")
    tensors = list_tensors(folder, prefix=_PREFIX)
    text_tower = keras_hub.models.AlbertBackbone(
        **{**arguments, **options}, name="text_tower"
    )
    variables = _name_variables(text_tower)
    if not _has(tensors, "pooler."):
        variables = {k: v for k, v in variables.items() if "pooler" not in k}
    shapes = {name: _stored_shape(each) for name, each in variables.items()}
    arrays = read_tensors(tensors, shapes, folder=folder)
    for name in tensors:
        # A layer left out would change what the model computes.
        if name.startswith("encoder.") and name not in shapes:
            raise InputError(
                f"{folder}: expected the layers of config.json and "
                f"no more, found {name}."
            )
    for name, variable in variables.items():
        array = arrays[name]
        if variable.name == "kernel":
            array = array.T
        # Attention keeps its heads in a dimension of their own.
        variable.assign(np.reshape(array, variable.shape))
    return text_tower


def _has(tensors: Mapping[str, Any], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


def _name_variables(text_tower: keras.Model) -> dict[str, keras.Variable]:
    """The backbone's variables by the names of their tensors."""
    variables = {}
    for variable in text_tower.weights:
        layer, _, name = variable.path.rpartition("/")
        inner = _INNER_LAYER.match(layer)
        prefix = inner.expand(_INNER_MODULE) if inner else ""
        module = _MODULES[_INNER_LAYER.sub("", layer)]
        ending = "bias" if name in ("bias", "beta") else "weight"
        variables[f"{prefix}{module}.{ending}"] = variable
    return variables


def _stored_shape(variable: keras.Variable) -> tuple[int, ...]:
    shape = tuple(variable.shape)
    if variable.name == "embeddings":
        return shape
    if variable.name != "kernel":
        return (math.prod(shape),)
    # PyTorch keeps a dense layer's kernel as (outputs, inputs). Heads are
    # among the inputs of attention's last one, among the outputs of others.
    at = -1 if "attention_output" in variable.path else 1
    return (math.prod(shape[at:]), math.prod(shape[:at]))


def _read_arguments(path: Path) -> dict[str, Any]:
    config = read_object(path)
    for field, default, accepted in _FIXED:
        value = config.get(field, default)
        rule = f"`{field}` must be one of {', '.join(map(str, accepted))}"
        _require(value in accepted, path, rule, {field: value})
    sizes = {k: config.get(k, default) for k, (_, default) in _SIZES.items()}
    for field, size in sizes.items():
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
    field = "hidden_dropout_prob"
    dropout = config.get(field, 0.0)
    is_rate = type(dropout) in (int, float) and 0 <= dropout < 1
    rule = f"`{field}` must be a number in [0, 1)"
    _require(is_rate, path, rule, {field: dropout})
    arguments = {_SIZES[field][0]: size for field, size in sizes.items()}
    return {**arguments, "dropout": float(dropout)}


def _require(
    is_met: bool, path: Path, rule: str, found: Mapping[str, Any]
) -> None:
    if not is_met:
        received = ", ".join(f"{name}={each!r}" for name, each in found.items())
        raise InputError(f"{path}: {rule}. Received: {received}.")
