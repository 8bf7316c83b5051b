"""The precision in which matrices are multiplied on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

_OPTION = "auto_mixed_precision_onednn_bfloat16"


def set_matmul_precision(name: str) -> None:
    """Sets the precision of matrix products in graphs from now on.

    Weights, sums and all other steps stay float32; TensorFlow's graph optimizer
    puts the casts in. Graphs that ran before are optimized anew.

    Args:
        name: 'float32' or 'bfloat16'.
    """
    # Without units for bfloat16 a processor would be several times slower.
    tf.config.optimizer.set_experimental_options({_OPTION: name == "bfloat16"})


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Sets the precision for a while; see `set_matmul_precision`."""
    options = tf.config.optimizer.get_experimental_options()
    before = "bfloat16" if options.get(_OPTION) else "float32"
    set_matmul_precision(name)
    try:
        yield
    finally:
        set_matmul_precision(before)
