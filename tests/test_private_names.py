"""Private names of Keras and KerasHub that the library uses are still there.

A new version that renames one fails here, with the file that needs it, and not
somewhere in a training step.
"""

import importlib

import keras
import keras_hub
import pytest

# Names in modules, and the file that uses each.
IN_MODULES = {
    "keras.src.backend.set_keras_mask": "layers/image_embedding_repeat.py",
    "keras.src.backend.common.global_state": "models/image_towers.py",
    "keras.src.models.Functional": "models/batch_norm_folding.py",
}
# Attributes of an object, and the file that uses each.
OF_MODEL = {
    "_flatten_layers": "models/lora.py, models/batch_norm_folding.py, "
    "training/distributed.py",
    "_maybe_symbolic_build": "models/bimodal_masked_lm.py",
    "_loss_tracker": "models/training_step.py",
}
OF_LAYER = {
    "_inbound_nodes": "models/batch_norm_folding.py",
    "_outbound_nodes": "models/batch_norm_folding.py",
}
OF_ALBERT_LAYER = {
    name: "models/unpadded_albert.py"
    for name in (
        "_self_attention_layer",
        "_self_attention_layer_norm",
        "_feedforward_intermediate_dense",
        "_feedforward_output_dense",
        "_feedforward_layer_norm",
    )
}


@pytest.fixture(scope="module")
def objects():
    inputs = keras.Input((2,))
    dense = keras.layers.Dense(1)
    model = keras.Model(inputs, dense(inputs))
    model.compile("adam", "mse")
    albert = keras_hub.models.AlbertBackbone(
        vocabulary_size=8,
        num_layers=1,
        num_heads=1,
        embedding_dim=4,
        hidden_dim=4,
        intermediate_dim=4,
        max_sequence_length=4,
    )
    return {
        "model": model,
        "layer": dense,
        "albert_layer": albert.transformer_layers[0][0],
    }


@pytest.mark.parametrize("path", IN_MODULES)
def test_private_name_of_a_module_is_there(path):
    module, _, name = path.rpartition(".")
    assert hasattr(importlib.import_module(module), name), (
        f"{path} is gone: mend bmt_keras/{IN_MODULES[path]}"
    )


@pytest.mark.parametrize(
    ("kind", "name", "file"),
    [
        (kind, name, file)
        for kind, names in (
            ("model", OF_MODEL),
            ("layer", OF_LAYER),
            ("albert_layer", OF_ALBERT_LAYER),
        )
        for name, file in names.items()
    ],
)
def test_private_attribute_is_there(objects, kind, name, file):
    assert hasattr(objects[kind], name), (
        f"{name} is gone from {type(objects[kind])}: mend bmt_keras/{file}"
    )
