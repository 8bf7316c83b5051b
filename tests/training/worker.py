"""One process of a run, as `bmt train --strategy` has several."""

import json
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from bmt_keras.commands.train import end_without_waiting
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.features import ImageFeatures
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.models import small_cnn
from bmt_keras.settings import Settings
from bmt_keras.training.data import TrainingData
from bmt_keras.training.distributed import (
    LostWorkerError,
    detect_lost_worker,
    fit_model_to_replicas,
    open_strategy,
)
from bmt_keras.training.run import Run

WORDS = ["a", "red", "blue", "green", "small", "large", "cube", "ball"]
WORDS += ["cone", "on", "in", "by", "two"]

# Seven captions a batch: two replicas get three or four, and some a blank.
SETTINGS = Settings().replace(
    image_height=16,
    image_width=16,
    image_trainable=False,
    text_num_layers=1,
    text_num_heads=2,
    text_embedding_dim=8,
    text_hidden_dim=16,
    text_intermediate_dim=16,
    sequence_length=12,
    max_positions=12,
    fusion_num_layers=1,
    fusion_num_heads=2,
    batch_size=7,
    epochs=12,
    steps_per_epoch=1,
    gradient_accumulation_steps=2,
    clipnorm=0.05,
    weight_decay=0.01,
    ema_momentum=0.5,
    learning_rate=3e-2,
    checkpoint_steps=2,
    checkpoint_epochs=100,
    passes=2,
    length_candidates=2,
)


class Die(keras.callbacks.Callback):
    """Kills its own process at a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def make_photos(first, count):
    """Captions of many lengths: replicas differ in masked tokens."""
    rng = np.random.default_rng(first)
    photos = []
    for n in range(first, first + count):
        lengths = rng.integers(1, 8, size=3)
        captions = [" ".join(rng.choice(WORDS, length)) for length in lengths]
        photos.append(CaptionedImage(n, Path(f"{n}.jpg"), tuple(captions)))
    return photos


def make_data():
    sides = make_photos(0, 15), make_photos(100, 5)
    features = []
    for photos in sides:
        rng = np.random.default_rng(photos[0].image_id)
        embeddings = rng.normal(size=(len(photos), 1, 1, 8))
        rows = {photo.image_id: n for n, photo in enumerate(photos)}
        features.append(ImageFeatures(embeddings.astype(np.float16), rows))
    return TrainingData(*sides, *features)


def train(out, strategy, settings=SETTINGS, **options):
    data = make_data()
    keras.utils.set_random_seed(settings.optimization.seed)
    encoder = small_cnn(16, 16, channels=8)
    encoder.trainable = False
    tokenizer = CaptionTokenizer.from_captions(
        caption for photo in data.train for caption in photo.captions
    )
    run = Run(settings, Path(out), strategy=strategy, **options)
    return run.train(data, tokenizer, encoder)


def dropout_of_replicas(strategy):
    """What two replicas of a model drop, and how they normalise."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((64,))
        x = keras.layers.BatchNormalization(momentum=0.0)(inputs)
        model = keras.Model(inputs, keras.layers.Dropout(0.5, seed=1)(x))
    fit_model_to_replicas(model, strategy)

    def call():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = tf.fill((2, 64), tf.cast(replica, tf.float32) * 2 + 1)
        return model(rows, training=True)

    dropped = strategy.run(tf.function(call))
    _, normalisation, dropout = model.layers
    return {
        "is_dropped": [
            (value.numpy() == 0).tolist()
            for value in strategy.experimental_local_results(dropped)
        ],
        "means": [
            float(value.numpy()[0])
            for value in normalisation.moving_mean.value.values
        ],
        "seeds": [
            value.numpy().tolist()
            for value in dropout.seed_generator.state.value.values
        ],
    }


def main(name, out, *step):
    if name == "two-devices":
        # Two processors stand for two GPUs.
        (cpu,) = tf.config.list_physical_devices("CPU")
        device = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [device, device])
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        found = dropout_of_replicas(strategy)
        train(out, strategy, verbose=0)
        Path(out, "replicas.json").write_text(json.dumps(found))
        return
    strategy = open_strategy(name)
    try:
        with detect_lost_worker(strategy):
            callbacks = [Die(int(number)) for number in step]
            train(out, strategy, callbacks=callbacks, verbose=2)
    except LostWorkerError as error:
        end_without_waiting(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
