"""Text encoders: ALBERT, fresh or pretrained."""

import keras
import keras_nlp

from bmt_keras.errors import InputError


def build_albert(
    *,
    vocabulary_size: int,
    num_layers: int,
    num_heads: int,
    embedding_dim: int,
    hidden_dim: int,
    intermediate_dim: int,
    max_length: int,
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
        max_length: Longest sequence in tokens.
        dropout: Dropout rate.

    Returns:
        A `keras_nlp.models.AlbertBackbone`.

    Raises:
        InputError: The heads do not divide the width.
    """
    if hidden_dim % num_heads:
        raise InputError(
            "`num_heads` must divide `hidden_dim`. Received: "
            f"num_heads={num_heads}, hidden_dim={hidden_dim}."
        )
    return keras_nlp.models.AlbertBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=num_layers,
        num_heads=num_heads,
        embedding_dim=embedding_dim,
        hidden_dim=hidden_dim,
        intermediate_dim=intermediate_dim,
        max_sequence_length=max_length,
        dropout=dropout,
        name="text_encoder",
    )


def load_albert(preset: str) -> keras.Model:
    """Loads a pretrained ALBERT by keras-nlp.

    Args:
        preset: A preset of keras-nlp, a hub's address, or a local folder.

    Returns:
        A `keras_nlp.models.AlbertBackbone`.

    Raises:
        InputError: It cannot be found or read.
    """
    try:
        return keras_nlp.models.AlbertBackbone.from_preset(preset)
    except Exception as err:
        # Hubs' clients raise errors of many kinds for what is one case here.
        raise InputError(
            f"The pretrained ALBERT {preset!r} cannot be loaded "
            f"({type(err).__name__}: {err}); give a local folder by "
            "--text-weights, or 'random'."
        ) from err
