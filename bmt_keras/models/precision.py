"""The precision in which models compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

_OPTION = "auto_mixed_precision_onednn_bfloat16"


def set_matmul_precision(name: str) -> None:
    """Sets the precision of graphs' matrix products: 'float32' or 'bfloat16'.

    Weights, sums and all other steps stay float32; TensorFlow's graph optimizer
    puts the casts in. Graphs that ran before are optimized anew.
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


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Has layers built in it follow a policy, if they are given none."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def copy_in_float32(model: keras.Model) -> keras.Model:
    """Gives a copy of a model, not compiled, that computes in float32."""
    copy = type(model).from_config(_in_float32(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def _in_float32(config: Any) -> Any:
    """A configuration, with the policies of all layers changed."""
    if isinstance(config, list | tuple):
        return type(config)(_in_float32(each) for each in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": "float32"}}
    return {key: _in_float32(value) for key, value in config.items()}
