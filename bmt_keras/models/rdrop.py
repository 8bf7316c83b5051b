"""How far two readings of a batch with different dropout are apart."""

from typing import Any

from keras import ops


def rdrop_divergence(logits: Any, other_logits: Any) -> Any:
    """The divergence that R-Drop adds to the loss, one number a token.

    With dropout a model is another one at each reading; that these agree keeps
    it from learning few captions by heart. The whole loss is the sum of the two
    readings' losses and of this, by a weight; a step here takes the half of it,
    so that its rate means what it does without.

    Args:
        logits: float, (tokens, vocabulary_size).
        other_logits: float, (tokens, vocabulary_size), of the other reading.

    Returns:
        float32, (tokens,), nats: the mean of both Kullback-Leibler divergences.

    Reference:
        [Liang et al., 2021](https://arxiv.org/abs/2106.14448)
    """
    one = ops.log_softmax(ops.cast(logits, "float32"))
    other = ops.log_softmax(ops.cast(other_logits, "float32"))
    apart = (ops.exp(one) - ops.exp(other)) * (one - other)
    return 0.5 * ops.sum(apart, axis=-1)
