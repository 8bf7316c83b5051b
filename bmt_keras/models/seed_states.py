"""States of random draws in a model's file: Keras leaves them out."""

from typing import Any

import keras
from keras import ops


def save_seed_states(model: keras.Model, store: Any) -> None:
    """Saves the state of each random generator beside the weights.

    Args:
        model: The model.
        store: As `save_own_variables` takes it.
    """
    for name, state in _find_seed_states(model).items():
        store[name] = ops.convert_to_numpy(state)


def load_seed_states(model: keras.Model, store: Any) -> None:
    """Loads what `save_seed_states` saved, if it is there.

    Args:
        model: The model.
        store: As `load_own_variables` takes it.
    """
    states = _find_seed_states(model)
    if set(states) <= set(store.keys()):
        for name, state in states.items():
            state.assign(store[name])


def _find_seed_states(model: keras.Model) -> dict[str, Any]:
    """The state of each random generator, by a name in the file."""
    others = [*model.weights]
    for metric in model.metrics:
        others += metric.variables
    known = {id(variable) for variable in others}
    states = [each for each in model.variables if id(each) not in known]
    return {f"seed_state_{i}": each for i, each in enumerate(states)}
