"""Runs every layer on fixed numbers, to compare the backends of Keras.

    KERAS_BACKEND=jax python tests/backends/run_layers.py jax.npz
    KERAS_BACKEND=torch python tests/backends/run_layers.py --compare jax.npz

The first writes all outputs, the second compares its own with them.
"""

import argparse
import sys

import keras
import numpy as np

from bmt_keras import layers

TOLERANCE = 1e-4
BATCH, LENGTH, HIDDEN, VOCABULARY = 4, 6, 8, 20
RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (BATCH, 5, 4, 3)).astype("uint8")
IMAGE = RNG.normal(size=(BATCH // 2, 2, 3, 5)).astype("float32")
CELLS = RNG.normal(size=(BATCH // 2, 3, HIDDEN)).astype("float32")
STATES = RNG.normal(size=(BATCH, LENGTH, HIDDEN)).astype("float32")
LOGITS = RNG.normal(size=(BATCH, LENGTH, VOCABULARY)).astype("float32")
TOKEN_IDS = RNG.integers(5, VOCABULARY, (BATCH, LENGTH)).astype("int32")
LABELS = RNG.integers(5, VOCABULARY, (BATCH, LENGTH)).astype("int32")
POSITIONS = RNG.integers(0, LENGTH, (BATCH, 3)).astype("int32")
PADDING_MASK = np.array([[1, 1, 1, 1, 0, 0], [1] * 6] * 2, "int32")
NOISE = {
    "rate": RNG.uniform(size=(BATCH, 1)).astype("float32"),
    "order": RNG.uniform(size=(BATCH, LENGTH)).astype("float32"),
    "share": RNG.uniform(size=(BATCH, LENGTH)).astype("float32"),
    "ids": RNG.integers(0, VOCABULARY - 4, (BATCH, LENGTH)).astype("int32"),
}


def new_head(**kwargs):
    embedding = keras.layers.ReversibleEmbedding(VOCABULARY, HIDDEN)
    return layers.MaskedTokenHead(embedding, **kwargs)


def new_fusion():
    return layers.CrossAttentionFusion(
        num_layers=2, num_heads=2, intermediate_dim=16, final_norm=True
    )


# Of each layer's class an instance and what it is called with.
CASES = {
    "ApplicationPreprocessing": (
        layers.ApplicationPreprocessing("DenseNet121"),
        [PIXELS],
    ),
    "BimodalFusion": (layers.BimodalFusion(5, "tanh"), [STATES, IMAGE]),
    "ConceptHead": (
        layers.ConceptHead(vocabulary_size=VOCABULARY, hidden_dim=16),
        [IMAGE],
    ),
    "CrossAttentionBlock": (
        layers.CrossAttentionBlock(num_heads=2, intermediate_dim=16),
        [STATES, CELLS, PADDING_MASK],
    ),
    "CrossAttentionFusion": (new_fusion(), [STATES, IMAGE, PADDING_MASK]),
    "ImageAttention": (layers.ImageAttention(2, 4), [STATES[:2], CELLS]),
    "ImageEmbeddingRepeat": (
        layers.ImageEmbeddingRepeat(),
        [IMAGE, STATES[:2]],
    ),
    "LengthHead": (
        layers.LengthHead(max_caption_tokens=9, hidden_dim=16),
        [IMAGE],
    ),
    "MaskedTokenHead": (new_head(), [STATES, POSITIONS]),
    "MaskedTokenLoss": (
        layers.MaskedTokenLoss(0.1),
        [LOGITS, LABELS, PADDING_MASK.astype("float32")],
    ),
    "RelativeSelfAttention": (
        layers.RelativeSelfAttention(num_heads=2, max_distance=3),
        [STATES, PADDING_MASK],
    ),
    "TokenMasking": (
        layers.TokenMasking(
            4,
            [0, 2, 3],
            rate=0.5,
            vocabulary_size=VOCABULARY,
            mask_share=0.6,
            random_share=0.2,
        ),
        [TOKEN_IDS, PADDING_MASK],
    ),
}


def set_weights(layer):
    rng = np.random.default_rng(7)
    layer.set_weights(
        [
            # Priors and variances are those that are not trained: positive.
            rng.normal(0, 0.3, weight.shape)
            if weight.trainable
            else rng.uniform(0.2, 0.8, weight.shape)
            for weight in layer.weights
        ]
    )


def run_layer(name):
    layer, inputs = CASES[name]
    layer(*inputs)
    set_weights(layer)
    if name == "TokenMasking":
        # Backends draw different numbers; shapes and dtypes are the same.
        drawn = layer.draw_noise((BATCH, LENGTH))
        assert {key: x.shape for key, x in drawn.items()} == {
            key: x.shape for key, x in NOISE.items()
        }
        return layer.mask_tokens(TOKEN_IDS, NOISE, PADDING_MASK)
    return layer(*inputs, training=False)


def train():
    """Trains all parts of a small captioner for two steps."""
    specs = {
        "token_ids": TOKEN_IDS,
        "image": IMAGE.repeat(2, axis=0),
        "labels": LABELS[:, :3],
        "positions": POSITIONS,
    }
    inputs = {
        name: keras.Input(array.shape[1:], dtype=array.dtype.name, name=name)
        for name, array in specs.items()
    }
    head = new_head()
    states = head.token_embedding(inputs["token_ids"])
    states = new_fusion()(states, inputs["image"])
    states = layers.BimodalFusion(HIDDEN)(states, inputs["image"])
    logits = head(states, inputs["positions"])
    loss = layers.MaskedTokenLoss(add_loss=True)(logits, inputs["labels"])
    model = keras.Model(inputs, loss)
    set_weights(model)
    model.compile(keras.optimizers.SGD(0.05))
    history = model.fit(specs, batch_size=BATCH, epochs=2, verbose=0)
    losses = history.history["loss"]
    assert losses[1] < losses[0], f"The loss does not decrease: {losses}."
    return [losses, *model.get_weights()]


def all_outputs():
    public = {name for name in layers.__all__ if name[0].isupper()}
    assert set(CASES) == public, f"Not run: {public ^ set(CASES)}."
    outputs = {name: run_layer(name) for name in CASES}
    outputs["tanh_gelu"] = layers.tanh_gelu(keras.ops.array(STATES))
    outputs["training"] = train()
    return {
        f"{name}.{index}": np.array(keras.ops.convert_to_numpy(x))
        for name, output in outputs.items()
        for index, x in enumerate(keras.tree.flatten(output))
    }


def compare(outputs, path):
    with np.load(path) as file:
        others = dict(file)
    other = others.pop("backend")
    if set(others) != set(outputs):
        sys.exit(f"{path} has other outputs: {set(others) ^ set(outputs)}.")
    for key, output in outputs.items():
        name = key.partition(".")[0]
        if output.shape != others[key].shape:
            sys.exit(f"{name} gives another shape than on {other}.")
        apart = np.abs(output - others[key].astype("float64")).max()
        # Not a number is no number within the tolerance.
        if not apart <= TOLERANCE:
            sys.exit(
                f"{name} differs by {apart:.2g} on {keras.backend.backend()} "
                f"from {other}."
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", help="where to write the outputs")
    parser.add_argument("--compare", metavar="FILE")
    arguments = parser.parse_args()
    outputs, backend = all_outputs(), keras.backend.backend()
    if backend != "tensorflow":
        for module in ("tensorflow", "keras_hub"):
            assert module not in sys.modules, f"{module} is imported."
    if arguments.file:
        np.savez(arguments.file, backend=backend, **outputs)
    if arguments.compare:
        compare(outputs, arguments.compare)
    print(f"{len(CASES)} layers run on {backend}.")


if __name__ == "__main__":
    main()
