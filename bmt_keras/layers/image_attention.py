"""Attention of tokens to an image that many calls read."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmt_keras")
class ImageAttention(keras.layers.MultiHeadAttention):
    """Multi-head attention whose keys and values can be kept.

    As a layer it is its parent. Apart from that, `project_image` gives the keys
    and values of an image, which depend on no token, and `attend` reads them:
    a decoder in many passes computes them once.

    Args:
        num_heads: int. Attention heads.
        key_dim: int. Width of each head.
        **kwargs: The arguments of `keras.layers.MultiHeadAttention`; what is
            kept takes no dropout.

    Reference:
        [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
    """

    def project_image(self, image_cells: Any) -> tuple[Any, Any]:
        """Computes keys and values: (images, cells, num_heads, key_dim) each.

        The layer must be built. `image_cells`: (images, cells, channels).
        """
        return self._key_dense(image_cells), self._value_dense(image_cells)

    def attend(self, token_states: Any, keys: Any, values: Any) -> Any:
        """Attends to keys and values of `project_image`.

        Maps `token_states`, (images, tokens, hidden_dim), to the same shape.
        """
        # Private names: Keras has no public way to attend to keys that are
        # computed before. These are the parts of which its `call` consists, and
        # those that KerasHub's `CachedMultiHeadAttention` uses likewise.
        queries = self._query_dense(token_states)
        mixed, _ = self._compute_attention(queries, keys, values)
        return self._output_dense(mixed)
