"""LoRA on a text tower, by Keras' own means, that outlives a checkpoint."""

from typing import Any

import keras
from keras import ops


class LoraFactors(keras.layers.Layer):
    """Trains low-rank changes of a text tower's queries and values alone.

    KerasHub's `Backbone.enable_lora` freezes the rest of the tower. Keras
    saves the kernels with the changes added, rounded to the dtype in which
    layers compute, and loads factors of zero, which would learn no more: two
    factors of zero have no gradient. This layer, which a model holds besides
    the tower, saves factors and kernels as they are, so that a run goes on.
    See Hu et al., 2021, https://arxiv.org/abs/2106.09685.

    Args:
        text_tower: A `keras_hub.models.AlbertBackbone`, which is changed.
        rank: int, positive. Rank of the changes.
        **kwargs: The arguments of `keras.layers.Layer`.
    """

    def __init__(
        self, text_tower: keras.Model, rank: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if rank < 1:
            raise ValueError(f"`rank` must be positive. Received: rank={rank}.")
        self.rank = rank
        text_tower.enable_lora(rank)
        targets = find_lora_layers(text_tower)
        # Behind a function: the layers and their weights are the tower's.
        self._targets = lambda: targets
        self.built = True

    def save_own_variables(self, store: Any) -> None:
        """Saves the factors, and the kernels without them."""
        for i, layer in enumerate(self._targets()):
            store[f"{i}_a"] = layer.lora_kernel_a
            store[f"{i}_b"] = layer.lora_kernel_b
            store[f"{i}_kernel"] = find_kernel(layer)

    def load_own_variables(self, store: Any) -> None:
        """Loads what was saved, in place of what Keras has loaded."""
        # Keras loads a functional model's own layers, and so the tower, before
        # what else the model holds.
        for i, layer in enumerate(self._targets()):
            layer.lora_kernel_a.assign(store[f"{i}_a"])
            layer.lora_kernel_b.assign(store[f"{i}_b"])
            find_kernel(layer).assign(store[f"{i}_kernel"])


def find_lora_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists the layers of a model on which LoRA is enabled."""
    # Keras has no public list of the layers within layers.
    layers = model._flatten_layers(include_self=False)
    return [each for each in layers if getattr(each, "lora_enabled", False)]


def find_kernel(layer: keras.layers.Layer) -> keras.Variable:
    """Gives a layer's kernel without LoRA's product, which stays frozen."""
    return next(each for each in layer.weights if each.name == "kernel")


def add_lora(model: keras.Model, rank: int) -> keras.Model:
    """Gives a copy of a `BimodalMaskedLM`, not compiled, that LoRA trains."""
    return _copy(model, lora_rank=rank)


def merge_lora(model: keras.Model) -> keras.Model:
    """Gives a copy, not compiled, with LoRA's changes in the kernels."""
    return _copy(model, lora_rank=None)


def _copy(model: keras.Model, *, lora_rank: int | None) -> keras.Model:
    config = {**model.get_config(), "lora_rank": lora_rank}
    copy = type(model).from_config(config)
    merged = {id(find_kernel(x)): _merge(x) for x in find_lora_layers(model)}
    for old, new in zip(_ordinary(model), _ordinary(copy), strict=True):
        new.assign(merged.get(id(old), old))
    return copy


def _merge(layer: keras.layers.Layer) -> Any:
    """The kernel with LoRA's changes; Keras' own may be in bfloat16."""
    product = ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b)
    return find_kernel(layer) + layer.lora_alpha / layer.lora_rank * product


def _ordinary(model: keras.Model) -> list[keras.Variable]:
    weights: list[keras.Variable] = model.weights
    return [w for w in weights if not w.name.startswith("lora_kernel")]
