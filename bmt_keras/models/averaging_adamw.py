"""The optimizer that a saved model is compiled with, and so needs to load."""

from collections.abc import Sequence
from typing import Any

import keras

_NOT_DECAYED = ("bias", "gamma", "beta", "gate")


@keras.saving.register_keras_serializable(package="bmt_keras")
class AveragingAdamW(keras.optimizers.AdamW):
    """AdamW that takes over the weights' average only when asked to.

    Keras' own gives the model its average at the end of each `fit`; a run
    that stopped within an epoch fits twice, and would go on from an average.

    Biases, normalisations and gates are not decayed. The arguments are those
    of `keras.optimizers.AdamW`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Keras saves no exclusions; so a reloaded model has them, too.
        self.exclude_from_weight_decay(var_names=list(_NOT_DECAYED))

    def finalize_variable_values(
        self, var_list: Sequence[keras.Variable]
    ) -> None:
        """Leaves the weights as they are."""

    def take_average(self, var_list: Sequence[keras.Variable]) -> None:
        """Sets weights to their average, if one is kept."""
        super().finalize_variable_values(var_list)
