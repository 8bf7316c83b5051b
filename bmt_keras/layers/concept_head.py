"""The tokens that an image's captions hold, predicted from the image."""

from typing import Any

import keras
from keras import ops

from bmt_keras.layers.parts import (
    ConfiguredLayer,
    Shape,
    check_positive,
    check_share,
    new_dense,
)

_LEAST_PROBABILITY = 1e-6  # of a token that no caption holds
_RARE = 1e-3  # a token of a smaller probability tells little
_MOST_LOG_ODDS = 3.0  # nats


@keras.saving.register_keras_serializable(package="bmt_keras")
class ConceptHead(ConfiguredLayer):
    """Predicts which tokens the captions of an image hold.

    A captioner learns a token from the captions that have it at a position;
    this head learns from all captions that have it anywhere, and apart from
    the language. The mean and the maximum over the cells are normalised and
    passed through two dense layers; dropout before both lets it learn from few
    images. Its logits are changes of the log-odds of a prior, so that it begins
    by giving each token its prior probability: see `adapt`.

    Args:
        vocabulary_size: int. Number of tokens.
        hidden_dim: int. Width of the first dense layer.
        dropout: float in [0, 1), on each dense layer's inputs. Defaults to 0.5.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        image_embedding: float, (batch, ..., channels).

    Returns:
        float32 whatever the dtype policy, (batch, vocabulary_size), of each
        token the log-odds that a caption of the image holds it.

    Raises:
        ValueError: If an argument is out of range or the channels are unknown.

    Reference:
        [Fang et al., 2015](https://arxiv.org/abs/1411.4952), who detect the
        words of captions before they write any.
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        hidden_dim: int,
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(vocabulary_size=vocabulary_size, hidden_dim=hidden_dim)
        check_share(dropout=dropout)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.dropout = dropout

    def build(self, image_embedding_shape: Shape) -> None:
        """Creates the normalisation, the dense layers and the prior."""
        batch, *between, channels = image_embedding_shape
        if channels is None:
            raise ValueError(
                "The channels of `image_embedding` must be known. Received: "
                f"image_embedding.shape={tuple(image_embedding_shape)}."
            )
        pooled = (batch, (2 if between else 1) * channels)
        # Of each feature over the images: what is rare in one is told apart.
        self.feature_norm = keras.layers.BatchNormalization(
            momentum=0.98, name="feature_norm", dtype=self.dtype_policy
        )
        self.feature_norm.build(pooled)
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, name="dropout", dtype=self.dtype_policy
        )
        self.dense = new_dense(
            self, "dense", self.hidden_dim, pooled, activation="relu"
        )
        self.changes = new_dense(
            self, "changes", self.vocabulary_size, (batch, self.hidden_dim)
        )
        self.prior = self.add_weight(
            name="prior",
            shape=(self.vocabulary_size,),
            initializer=keras.initializers.Constant(0.5),
            trainable=False,
            dtype="float32",
            autocast=False,  # float16 has no such small probabilities
        )

    def call(self, image_embedding: Any, training: bool | None = None) -> Any:
        """Computes the logits; see the class."""
        x = image_embedding
        between = tuple(range(1, len(x.shape) - 1))
        if between:
            x = ops.concatenate(
                [ops.mean(x, axis=between), ops.max(x, axis=between)], axis=-1
            )
        # (batch, channels or twice as many)
        x = self.feature_norm(x, training=training)
        x = self.dense(self.dropout_layer(x, training=training))
        x = self.changes(self.dropout_layer(x, training=training))
        prior = ops.clip(self.prior, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        return ops.cast(x, "float32") + ops.log(prior / (1 - prior))

    def adapt(self, prior: Any) -> None:
        """Sets the prior: of each token the share of captions that hold it.

        `prior`: float, (vocabulary_size,).
        """
        self.prior.assign(prior)

    def log_odds(self, logits: Any) -> Any:
        """Computes how much likelier than its prior a token is for an image.

        It is the logarithm of the ratio of the two probabilities. Added to the
        logits of a language model it makes the likely tokens likelier, as a
        product of experts does. It is next to nothing for tokens that hardly
        any caption holds, and never more than a factor of 20. Maps the layer's
        `logits`, (batch, vocabulary_size), to nats, float32, of that shape.
        """
        # Added to both, so that two tiny probabilities have a ratio near 1.
        probabilities = ops.sigmoid(ops.cast(logits, "float32"))
        log_odds = ops.log((probabilities + _RARE) / (self.prior + _RARE))
        return ops.clip(log_odds, -_MOST_LOG_ODDS, _MOST_LOG_ODDS)

    def rarity(self) -> Any:
        """Computes the prior's negative logarithm: how rare each token is.

        Returns:
            float32, (vocabulary_size,), nats, not negative.
        """
        return -ops.log(ops.clip(self.prior, _RARE, 1.0))
