"""A caption's number of tokens, predicted from its image."""

from typing import Any

import keras
from keras import ops

from bmt_keras.layers.parts import (
    ConfiguredLayer,
    Shape,
    check_positive,
    check_share,
    new_dense,
    new_norm,
    tanh_gelu,
)


@keras.saving.register_keras_serializable(package="bmt_keras")
class LengthHead(ConfiguredLayer):
    """Predicts how many tokens the caption of an image has.

    Decoding in parallel fills a canvas of masks whose length must be chosen
    first; here the image alone tells it. Each cell is normalised and passed
    through a dense layer, the cells are averaged, and a second dense layer
    gives a logit for every length from 0 to `max_caption_tokens`.

    Args:
        max_caption_tokens: int. The greatest number of tokens.
        hidden_dim: int. Width of the first dense layer.
        dropout: float in [0, 1), on the averaged features. Defaults to 0.0.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        image_embedding: float, (batch, ..., channels).

    Returns:
        Logits, (batch, max_caption_tokens + 1), float32 whatever the policy.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        [Ghazvininejad et al., 2019](https://arxiv.org/abs/1904.09324), which
        predicts the length of a translation from its source.
    """

    def __init__(
        self,
        *,
        max_caption_tokens: int,
        hidden_dim: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(
            max_caption_tokens=max_caption_tokens, hidden_dim=hidden_dim
        )
        check_share(dropout=dropout)
        self.max_caption_tokens = max_caption_tokens
        self.hidden_dim = hidden_dim
        self.dropout = dropout

    def build(self, image_embedding_shape: Shape) -> None:
        """Creates the normalisation and the two dense layers."""
        shape = image_embedding_shape
        self.layer_norm = new_norm(self, "layer_norm", shape, epsilon=1e-3)
        self.dense = new_dense(
            self, "dense", self.hidden_dim, shape, activation=tanh_gelu
        )
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, name="dropout", dtype=self.dtype_policy
        )
        lengths = self.max_caption_tokens + 1  # from 0 on
        self.logits = new_dense(
            self, "logits", lengths, (shape[0], self.hidden_dim)
        )

    def call(self, image_embedding: Any) -> Any:
        """Computes the logits; see the class."""
        # (batch, ..., hidden_dim): each cell has its say before the mean.
        cells = self.dense(self.layer_norm(image_embedding))
        between = tuple(range(1, len(cells.shape) - 1))
        # (batch, hidden_dim)
        features = ops.mean(cells, axis=between) if between else cells
        return ops.cast(self.logits(self.dropout_layer(features)), "float32")
