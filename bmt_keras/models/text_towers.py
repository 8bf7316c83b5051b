"""Text towers: ALBERT, fresh or pretrained."""

from pathlib import Path

import keras
import keras_hub

from bmt_keras.errors import InputError
from bmt_keras.models.albert_checkpoint import AlbertCheckpoint, read_albert
from bmt_keras.models.checkpoint_files import (
    HUB_PREFIX,
    find_checkpoint,
    read_config,
)


def build_albert(
    *,
    vocabulary_size: int,
    num_layers: int,
    num_heads: int,
    embedding_dim: int,
    hidden_dim: int,
    intermediate_dim: int,
    sequence_length: int,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds an ALBERT with fresh weights (Lan et al. 2019, arXiv 1909.11942).

    Args:
        vocabulary_size: Number of tokens.
        num_layers: Number of layers, all sharing one set of weights.
        num_heads: Attention heads, a divisor of `hidden_dim`.
        embedding_dim: Width of the token embedding.
        hidden_dim: Width of the states.
        intermediate_dim: Width of the feed-forward.
        sequence_length: Longest sequence in tokens.
        dropout: Dropout rate.

    Returns:
        A `keras_hub.models.AlbertBackbone`.

    Raises:
        InputError: The heads do not divide the width.
    """
    if hidden_dim % num_heads:
        raise InputError(
            "`num_heads` must divide `hidden_dim`. Received: "
            f"num_heads={num_heads}, hidden_dim={hidden_dim}."
        )
    return keras_hub.models.AlbertBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=num_layers,
        num_heads=num_heads,
        embedding_dim=embedding_dim,
        hidden_dim=hidden_dim,
        intermediate_dim=intermediate_dim,
        max_sequence_length=sequence_length,
        dropout=dropout,
        name="text_tower",
    )


def load_albert(
    address: str, *, dropout: float | None = None
) -> AlbertCheckpoint:
    """Loads a pretrained ALBERT.

    Args:
        address: A local folder in Hugging Face's layout or in KerasHub's,
            `hf://organisation/name` with or without `@revision`, or what else
            KerasHub knows: a preset's name or a kaggle:// address.
        dropout: Dropout rate; None for the checkpoint's own.

    Returns:
        The text tower, and the masked language model's head if the checkpoint
        is in Hugging Face's layout and has one.

    Raises:
        InputError: It cannot be found, read or followed.
    """
    if address.startswith(HUB_PREFIX) or Path(address).is_dir():
        folder = find_checkpoint(address)
        # KerasHub's layout has a config.json too, that of the Keras object.
        if "registered_name" not in read_config(folder):
            return read_albert(folder, dropout=dropout)
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
