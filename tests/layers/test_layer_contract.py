"""What every layer of the library keeps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops, tree

from bmt_keras import layers

MIXED = ["mixed_float16", "mixed_bfloat16"]


def flatten(outputs):
    return [ops.convert_to_numpy(x) for x in tree.flatten(outputs)]


def assert_close(actual, expected, atol=1e-6):
    tree.assert_same_structure(actual, expected)
    for one, other in zip(flatten(actual), flatten(expected), strict=True):
        np.testing.assert_allclose(
            one.astype("float32"), other.astype("float32"), atol=atol, rtol=0
        )


def shapes_and_dtypes(outputs):
    return tree.map_structure(
        lambda x: (
            f"{tuple(x.shape)} {keras.backend.standardize_dtype(x.dtype)}"
        ),
        outputs,
    )


def test_table_holds_every_layer(cases):
    exported = {name: getattr(layers, name) for name in layers.__all__}
    classes = {name for name, x in exported.items() if isinstance(x, type)}
    assert set(cases) == classes


def test_config_round_trip_gives_the_same_layer(case):
    layer = case.make_layer()
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()
    arrays = case.make_arrays()
    case.run(copy, *arrays)
    copy.set_weights(layer.get_weights())
    assert_close(case.run(copy, *arrays), case.run(layer, *arrays))


def test_layer_is_registered_under_the_package(case):
    cls = type(case.make())
    name = keras.saving.get_registered_name(cls)
    assert name == f"bmt_keras>{cls.__name__}"


def test_build_creates_every_weight(case):
    layer, built = case.make_layer(name="layer"), case.make(name="layer")
    if layer.get_build_config() is not None:
        built.build_from_config(layer.get_build_config())
    expected = {variable.path: variable.shape for variable in layer.weights}
    assert len(expected) == len(layer.weights)
    assert {v.path: v.shape for v in built.weights} == expected


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_symbolic_output_is_shaped_as_the_eager_one(case, policy):
    arrays = case.make_arrays()
    layer = case.make_layer(dtype=policy)
    symbols = [keras.KerasTensor(x.shape, x.dtype) for x in arrays]
    symbolic, eager = case.run(layer, *symbols), case.run(layer, *arrays)
    assert shapes_and_dtypes(symbolic) == shapes_and_dtypes(eager)


def test_batch_and_length_may_change_between_calls(case):
    layer = case.make_layer()
    model = case.make_model(layer)
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in model.inputs]
    compiled = tf.function(
        lambda *arrays: model(list(arrays)), input_signature=specs
    )
    for batch, length in [(2, 6), (4, 9)]:
        arrays = case.make_arrays(batch, length)
        eager = case.run(layer, *arrays)
        assert_close(model(arrays), eager)
        assert_close(compiled(*arrays), eager, atol=1e-5)


class SquareLoss(keras.layers.Layer):
    def call(self, x):
        self.add_loss(ops.mean(ops.square(ops.cast(x, "float32") - 1.0)))
        return x


def test_one_fit_step_trains_the_layer_and_what_stands_before(case):
    layer = case.make_layer()
    inputs = case.make_inputs()
    first, *others = inputs
    if first.dtype == "float32":
        first = keras.layers.Dense(first.shape[-1], name="before")(first)
    outputs = case.run(layer, first, *others)
    if isinstance(outputs, dict):
        embedding = keras.layers.Embedding(20, 1, name="after")
        outputs = embedding(outputs["token_ids"])
    model = keras.Model(inputs, SquareLoss()(outputs))
    model.compile(keras.optimizers.SGD(0.1))
    weights = model.trainable_variables
    old = [variable.numpy() for variable in weights]
    history = model.fit(case.make_arrays(), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for variable, value in zip(weights, old, strict=True):
        # A bias of the keys moves every score of a query alike: no gradient.
        if not variable.path.endswith("key/bias"):
            assert np.any(variable.numpy() != value), variable.path


HEADS = {"num_heads": 2, "intermediate_dim": 6}
BLOCKS = {"num_layers": 1, **HEADS}
LENGTHS = {"max_caption_tokens": 9, "hidden_dim": 7}
CONCEPTS = {"vocabulary_size": 9, "hidden_dim": 7}


@pytest.mark.parametrize(
    ("name", "sizes", "wrong"),
    [
        ("BimodalFusion", {}, {"units": 0}),
        ("ConceptHead", CONCEPTS, {"vocabulary_size": 0}),
        ("ConceptHead", CONCEPTS, {"hidden_dim": 0}),
        ("ConceptHead", CONCEPTS, {"dropout": 1.0}),
        ("CrossAttentionBlock", HEADS, {"num_heads": 0}),
        ("CrossAttentionBlock", HEADS, {"intermediate_dim": 0}),
        ("CrossAttentionBlock", HEADS, {"dropout": -0.1}),
        ("CrossAttentionFusion", BLOCKS, {"num_layers": 0}),
        ("CrossAttentionFusion", BLOCKS, {"image_dropout": 1.0}),
        ("ImageEmbeddingRepeat", {}, {"length": 0}),
        ("LengthHead", LENGTHS, {"max_caption_tokens": 0}),
        ("LengthHead", LENGTHS, {"hidden_dim": 0}),
        ("LengthHead", LENGTHS, {"dropout": 1.0}),
        ("MaskedTokenLoss", {}, {"label_smoothing": -0.1}),
        ("MaskedTokenLoss", {}, {"label_smoothing": 1.0}),
        ("RelativeSelfAttention", {}, {"num_heads": 0}),
        ("RelativeSelfAttention", {"num_heads": 2}, {"max_distance": 0}),
    ],
)
def test_argument_out_of_range_is_named(name, sizes, wrong):
    ((argument, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"`{argument}` must .*={value}"):
        getattr(layers, name)(**{**sizes, **wrong})


@pytest.mark.parametrize(
    "name",
    ["CrossAttentionBlock", "CrossAttentionFusion", "RelativeSelfAttention"],
)
def test_heads_must_divide_the_width(cases, name):
    layer = cases[name].make()
    # A fusion's blocks are made with its heads.
    for part in (layer, *getattr(layer, "blocks", ())):
        part.num_heads = 3
    with pytest.raises(ValueError, match="num_heads=3, hidden_dim=8"):
        cases[name].run(layer, *cases[name].make_arrays())


@pytest.mark.parametrize(
    "name", ["CrossAttentionBlock", "CrossAttentionFusion", "LengthHead"]
)
def test_dropout_acts_in_training_alone(cases, name):
    layer, arrays = cases[name].make_layer(), cases[name].make_arrays()
    kept = layer(*arrays)
    np.testing.assert_array_equal(layer(*arrays, training=False), kept)
    assert np.any(layer(*arrays, training=True) != kept)


@pytest.mark.parametrize("policy", MIXED)
def test_mixed_precision_stays_near_float32(case, policy):
    layer, mixed = case.make_layer(), case.make_layer(dtype=policy)
    assert {v.dtype for v in mixed.trainable_variables} <= {"float32"}
    mixed.set_weights(layer.get_weights())
    arrays = case.make_arrays()
    assert_close(case.run(mixed, *arrays), case.run(layer, *arrays), atol=0.1)


def test_saved_functional_model_loads_with_the_same_output(case, tmp_path):
    model = case.make_model(case.make_layer())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    arrays = case.make_arrays()
    assert_close(loaded(arrays), model(arrays))


def test_saved_model_serves_the_same_output(case, tmp_path):
    model = case.make_model(case.make_layer())
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        name="serve",
        fn=lambda *arrays: model(list(arrays), training=False),
        input_signature=[
            tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in model.inputs
        ],
    )
    archive.write_out(tmp_path / "1", verbose=False)
    served = tf.saved_model.load(tmp_path / "1")
    arrays = case.make_arrays(4, 9)
    assert_close(served.serve(*arrays), model(arrays), atol=1e-5)
