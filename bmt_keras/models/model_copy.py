"""Copies of a model that differ in how they compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Has layers built in it follow a policy, if they are given none."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def copy_model(model: keras.Model) -> keras.Model:
    """Gives a copy of a model with weights of its own, not compiled."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


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
