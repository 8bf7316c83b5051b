"""Attention of tokens to an image that many calls read."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmt_keras")
class ImageAttention(keras.layers.MultiHeadAttention):
    """Multi-head attention whose keys and values can be kept.

    As a layer it is its parent. Apart from that, `project_image` gives the keys
    and values of an image, which depend on no token, and `attend` reads them:
    a decoder in many passes computes them once. KerasHub's
    `CachedMultiHeadAttention` likewise takes its parent's projections apart.

    Args:
        num_heads: int. Attention heads.
        key_dim: int. Width of each head.
        **kwargs: The arguments of `keras.layers.MultiHeadAttention`; what is
            kept takes no dropout.

    Reference:
        [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
    """

    def project_image(self, image_cells: Any) -> tuple[Any, Any]:
        """Computes what tokens attend to. The layer must be built.

        Args:
            image_cells: float, (images, cells, channels).

        Returns:
            Keys and values, float, both (images, cells, num_heads, key_dim).
        """
        return self._key_dense(image_cells), self._value_dense(image_cells)

    def attend(self, token_states: Any, keys: Any, values: Any) -> Any:
        """Attends to keys and values of `project_image`.

        Args:
            token_states: float, (images, tokens, hidden_dim).
            keys: float, (images, cells, num_heads, key_dim).
            values: float, (images, cells, num_heads, key_dim).

        Returns:
            float, (images, tokens, hidden_dim).
        """
        # Keras has no public way to attend to keys that are computed before:
        # these are the parts of which its own `call` consists.
        queries = self._query_dense(token_states)
        mixed, _ = self._compute_attention(queries, keys, values)
        return self._output_dense(mixed)
