"""Makes or checks the numbers of the 2020 notebook's own model.

The model is built from the real classes of transformers, which no longer has
TensorFlow models, so the script runs in an environment of its own:

    python3.11 -m venv env
    env/bin/pip install -r requirements.txt
    env/bin/python make.py            # writes tiny.npz and parameters.json
    env/bin/python make.py --check    # recomputes and compares with both

`tiny.npz` holds a tiny model with random weights, three masked batches, and
what the notebook makes of them; `parameters.json` lists the variables of the
model in its real size. No pretrained weights are read.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from transformers import AlbertConfig, TFAlbertModel
from transformers.models.albert.modeling_tf_albert import TFAlbertMLMHead

FOLDER = Path(__file__).resolve().parent
NUMBERS, PARAMETERS = FOLDER / "tiny.npz", FOLDER / "parameters.json"

ALBERT_BASE_V2 = {
    "vocab_size": 30_000,
    "embedding_size": 128,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
TINY_ALBERT = {
    "vocab_size": 50,
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
}
REAL_IMAGE, TINY_IMAGE = (2, 2, 2048), (2, 2, 6)

CLS, SEP, MASK, FIRST_WORD = 2, 3, 4, 5
NOT_MASKED = -100
LENGTHS = (9, 6, 4)
# The batches' gradients differ in size, so that clipping acts on some only.
IMAGE_SCALES = (1.0, 0.2, 2.0)
# Adam divides a gradient by its size: one that is mere rounding would move its
# weight at random. This seed draws none.
SEED = 2020
# The notebook's rate, 1e-5, moves weights by hardly more than they are rounded.
LEARNING_RATE = 0.01


class NotebookModel(tf_keras.Model):
    """Frozen ALBERT, its states beside the repeated image, ALBERT's head."""

    def __init__(self, albert: Mapping[str, int], image: tuple[int, ...]):
        super().__init__(name="notebook")
        self.image_dim = int(np.prod(image))
        self.albert = TFAlbertModel(AlbertConfig(**albert), name="albert")
        self.albert.trainable = False
        width = albert["hidden_size"] + self.image_dim
        self.predictions = TFAlbertMLMHead(
            AlbertConfig(**{**albert, "hidden_size": width}),
            self.albert.get_input_embeddings(),
            name="predictions",
        )

    def call(self, batch: Mapping[str, Any], training: bool = False) -> Any:
        token_ids = batch["token_ids"]
        states = self.albert(
            token_ids, attention_mask=batch["padding_mask"], training=training
        )[0]
        length = tf.shape(token_ids)[1]
        image = tf.reshape(batch["image_embedding"], (-1, 1, self.image_dim))
        repeated = tf.repeat(image, length, axis=1)
        return self.predictions(tf.concat([states, repeated], axis=-1))


def masked_loss(labels: np.ndarray, logits: tf.Tensor) -> tf.Tensor:
    asked = labels != NOT_MASKED
    return tf.reduce_mean(
        tf_keras.losses.sparse_categorical_crossentropy(
            tf.boolean_mask(labels, asked),
            tf.boolean_mask(logits, asked),
            from_logits=True,
        )
    )


def plain_name(variable: tf.Variable) -> str:
    name = variable.name.removeprefix("notebook/").removesuffix(":0")
    name = name.replace("albert/albert/", "albert/")
    return name.replace("albert_layer_groups_._0/albert_layers_._0", "layer")


def draw_weights(model: NotebookModel, rng: np.random.Generator) -> None:
    for variable in model.variables:
        name, shape = plain_name(variable), variable.shape
        spread = shape[0] ** -0.5 if name.endswith("kernel") else 0.3
        mean = 1.0 if name.endswith("gamma") else 0.0
        variable.assign(rng.normal(mean, spread, shape).astype(np.float32))


def draw_batch(
    rng: np.random.Generator, image_scale: float
) -> dict[str, np.ndarray]:
    """Draws captions with padding, of which the last has no masked token."""
    shape = (len(LENGTHS), max(LENGTHS))
    ends = np.array(LENGTHS)[:, None] - 1
    position = np.arange(shape[1])[None]
    token_ids = rng.integers(FIRST_WORD, TINY_ALBERT["vocab_size"], shape)
    token_ids[:, 0] = CLS
    token_ids = np.where(position == ends, SEP, token_ids)
    token_ids = np.where(position > ends, 0, token_ids)
    masked = (token_ids >= FIRST_WORD) & (rng.random(shape) < 0.5)
    masked[0, 1], masked[-1] = True, False
    # As the output of InceptionV3, which ends in a ReLU.
    image = np.maximum(rng.normal(size=(shape[0], *TINY_IMAGE)), 0)
    return {
        "token_ids": np.where(masked, MASK, token_ids).astype(np.int32),
        "padding_mask": (position <= ends).astype(np.int32),
        "labels": np.where(masked, token_ids, NOT_MASKED).astype(np.int32),
        "image_embedding": (image_scale * image).astype(np.float32),
    }


def train_step(
    model: NotebookModel, batch: Mapping[str, np.ndarray], optimizer: Any
) -> dict[str, np.ndarray]:
    with tf.GradientTape() as tape:
        logits = model(batch, training=True)
        loss = masked_loss(batch["labels"], logits)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, variables)
    # `predictions/bias` has none: nothing reads it.
    pairs = [
        (g, v)
        for g, v in zip(gradients, variables, strict=True)
        if g is not None
    ]
    optimizer.apply_gradients(pairs)
    return {
        "logits": logits.numpy(),
        "loss": loss.numpy(),
        **{f"gradients/{plain_name(v)}": g.numpy() for g, v in pairs},
    }


def make_numbers() -> dict[str, np.ndarray]:
    """Trains the tiny model for a step a batch; the steps are axis 0."""
    rng = np.random.default_rng(SEED)
    batches = [draw_batch(rng, scale) for scale in IMAGE_SCALES]
    model = NotebookModel(TINY_ALBERT, TINY_IMAGE)
    model(batches[0])
    draw_weights(model, rng)
    start = {f"weights/{k}": v for k, v in values(model.variables)}
    # The Adam of 2020, before Keras rewrote its optimizers.
    optimizer = tf_keras.optimizers.legacy.Adam(
        LEARNING_RATE, epsilon=1e-8, clipnorm=1.0
    )
    steps = [train_step(model, batch, optimizer) for batch in batches]
    blank = np.full_like(batches[0]["labels"], NOT_MASKED)
    return {
        **start,
        **{f"batches/{k}": v for k, v in stack(batches).items()},
        **stack(steps),
        **{f"trained/{k}": v for k, v in values(model.trainable_variables)},
        "learning_rate": np.float32(LEARNING_RATE),
        "loss_without_masks": masked_loss(blank, model(batches[0])).numpy(),
    }


def values(variables: list[tf.Variable]) -> Iterator[tuple[str, np.ndarray]]:
    return ((plain_name(v), v.numpy()) for v in variables)


def stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def make_parameters() -> dict[str, Any]:
    """Counts the parameters of the model in its real size."""
    model = NotebookModel(ALBERT_BASE_V2, REAL_IMAGE)
    tokens = np.array([[CLS, FIRST_WORD, SEP]])
    inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    model({**inputs, "image_embedding": np.zeros((1, *REAL_IMAGE), "f4")})
    sides = {
        "frozen": model.non_trainable_variables,
        "trainable": model.trainable_variables,
    }
    return {
        side: {
            "parameters": sum(int(np.prod(v.shape)) for v in variables),
            "shapes": {plain_name(v): v.shape.as_list() for v in variables},
        }
        for side, variables in sides.items()
    }


def find_differences(
    numbers: Mapping[str, np.ndarray], parameters: Mapping[str, Any]
) -> list[str]:
    with np.load(NUMBERS, allow_pickle=False) as archive:
        stored = dict(archive)
    differences = sorted(stored.keys() ^ numbers.keys())
    for name in sorted(stored.keys() & numbers.keys()):
        old, new = stored[name], numbers[name]
        if old.shape != new.shape or not np.allclose(
            old, new, rtol=1e-5, atol=1e-5, equal_nan=True
        ):
            differences.append(name)
    if json.loads(PARAMETERS.read_text(encoding="utf-8")) != parameters:
        differences.append(PARAMETERS.name)
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare, write nothing"
    )
    check = parser.parse_args().check
    numbers, parameters = make_numbers(), make_parameters()
    if not check:
        np.savez_compressed(NUMBERS, **numbers)
        text = json.dumps(parameters, indent=2) + "\n"
        PARAMETERS.write_text(text, encoding="utf-8")
        return
    if differences := find_differences(numbers, parameters):
        sys.exit(f"Not as stored: {', '.join(differences)}.")


if __name__ == "__main__":
    main()
