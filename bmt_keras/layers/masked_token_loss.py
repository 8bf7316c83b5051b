"""The loss of a masked language model."""

from typing import Any

import keras
from keras import ops

from bmt_keras.layers.parts import check_share


@keras.saving.register_keras_serializable(package="bmt_keras")
class MaskedTokenLoss(keras.layers.Layer):
    """Computes the mean cross-entropy of the masked tokens, in nats per token.

    It is computed in float32 whatever the dtype policy. A batch with no masked
    token has the loss 0 and gradients of 0, where a plain mean has NaN.

    Args:
        label_smoothing: float in [0, 1). Share of the target's probability
            that is spread evenly over the vocabulary. Defaults to 0.0.
        add_loss: bool. Whether the loss is also added to the model's, so that
            a functional model with this layer trains after
            `compile(optimizer)` alone. Defaults to False.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        logits: float, (batch, positions, vocabulary_size), of the masked
            positions or of all positions.
        labels: int, (batch, positions), of any value where the weight is 0.
        sample_weight: float, (batch, positions), 0 where a position does not
            count, or None for the mask that `logits` carry, else `labels`;
            without one every position counts.

    Returns:
        float32, (), at least 0.

    Raises:
        ValueError: If `label_smoothing` is out of its range.

    Example:
        ```python
        loss = MaskedTokenLoss()
        logits = np.zeros((1, 2, 4))
        labels = np.array([[3, 0]])
        loss(logits, labels, np.array([[1.0, 0.0]]))  # log(4) = 1.386
        ```
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        add_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        # Without autocast float32 logits are not rounded to float16 first.
        super().__init__(autocast=False, **kwargs)
        check_share(label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing
        # `Layer.add_loss` is a method already.
        self._adds_loss = add_loss

    def call(
        self,
        logits: Any,
        labels: Any,
        sample_weight: Any = None,
        logits_mask: Any = None,
        labels_mask: Any = None,
    ) -> Any:
        """Averages the cross-entropy over the weights; see the class."""
        if sample_weight is None:
            sample_weight = labels_mask if logits_mask is None else logits_mask
        if sample_weight is None:
            sample_weight = ops.ones_like(labels)
        weight = ops.cast(sample_weight, "float32")
        # Others may fail or give NaN, which a weight of 0 does not undo.
        labels = ops.where(weight > 0, labels, 0)
        cross_entropy = self.cross_entropy(logits, labels)
        loss = ops.divide_no_nan(
            ops.sum(cross_entropy * weight), ops.sum(weight)
        )
        if self._adds_loss:
            self.add_loss(loss)
        return loss

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """The cross-entropy of each position, for other ways to average.

        Args:
            logits: float, (..., vocabulary_size).
            labels: int, (...).

        Returns:
            float32, (...), in nats.
        """
        share = self.label_smoothing
        logits = ops.cast(logits, "float32")
        if share == 0:
            return ops.sparse_categorical_crossentropy(
                labels, logits, from_logits=True
            )
        # One-hot labels are as large as the logits: smoothing alone has them.
        size = logits.shape[-1]
        smooth = ops.one_hot(labels, size) * (1 - share) + share / size
        return ops.categorical_crossentropy(smooth, logits, from_logits=True)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Returns None: the loss has no positions."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "add_loss": self._adds_loss,
        }
