import copy
import operator
import shutil

import keras
import numpy as np
import pytest

from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.features import ImageFeatures
from bmt_keras.models import build_image_tower, build_masked_lm
from bmt_keras.training.checkpoints import Checkpoints, load_last
from bmt_keras.training.optimizer import build_optimizer, count_batches
from bmt_keras.training.run import _fit

SIZE = 6


def learn(settings, gradients):
    """What an optimizer makes of a variable, and its average."""
    variable = keras.Variable(
        np.linspace(-1, 1, SIZE, dtype="float32"), name="kernel"
    )
    optimizer = build_optimizer(settings, len(gradients))
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply_gradients([(keras.ops.array(gradient), variable)])
    final = np.array(variable)
    if settings.optimization.ema_momentum:
        optimizer.take_average([variable])
    return optimizer, final, np.array(variable)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "ema_momentum": 0.7},
        {"ema_momentum": 0.5},
    ],
)
def test_batches_together_are_one_update_with_their_mean(
    tiny_settings, changes
):
    settings = tiny_settings.replace(schedule="constant", **changes)
    gradients = np.random.default_rng(0).normal(size=(13, SIZE))
    gradients = gradients.astype(np.float32)
    accumulating = settings.replace(gradient_accumulation_steps=3)
    optimizer, *found = learn(accumulating, gradients[:12])
    assert (count_batches(optimizer), int(optimizer.iterations)) == (12, 4)
    means = gradients[:12].reshape(4, 3, SIZE).mean(axis=1)
    _, *expected = learn(settings, means)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    # The average takes the last update in with the batches that follow it.
    if not settings.optimization.ema_momentum:
        return
    *_, average = learn(accumulating, [*gradients[:12], *gradients[:2]])
    np.testing.assert_allclose(average, expected[1], atol=1e-6)


@pytest.fixture
def fit(sample_photos, tiny_settings, tokenizer, tmp_path):
    """Fits a model from its step to the tenth, with the run's own loop."""
    settings = tiny_settings.replace(
        fusion="concat",
        concept_dim=0,
        predict_length=False,
        gradient_accumulation_steps=3,
        ema_momentum=0.5,
    )
    photos = sample_photos[0]
    pixels = np.random.default_rng(0).integers(
        0, 256, (len(photos), 16, 16, 3), np.uint8
    )
    features = ImageFeatures(
        pixels, {photo.image_id: i for i, photo in enumerate(photos)}
    )
    batches = CaptionBatches(
        photos,
        features,
        tokenizer=tokenizer,
        image_input="images",
        batch_size=4,
        sequence_length=18,
    )

    def make_model():
        keras.utils.set_random_seed(0)
        encoder = build_image_tower(settings)
        model = build_masked_lm(settings, tokenizer, image_tower=encoder)
        model.compile(optimizer=build_optimizer(settings, 10))
        model.optimizer.build(model.trainable_variables)
        return model

    def fit(model, *callbacks):
        model = model or make_model()
        model.run_eagerly = True  # tracing would take longer
        _fit(
            model,
            batches,
            make_validation(batches),
            epochs=2,
            epochs_of_dataset=2,
            steps_per_epoch=5,
            history=tmp_path / "history.csv",
            callbacks=[
                Checkpoints(tmp_path / "checkpoints", every_steps=4),
                *callbacks,
            ],
            verbose=0,
        )
        return model

    return fit


def make_validation(batches):
    batches = copy.copy(batches)
    batches.steps_per_epoch = 1
    return batches


def test_run_that_stops_between_two_updates_goes_on(fit, stop_at, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(None, stop_at(5))
    last = load_last(tmp_path / "checkpoints")
    assert count_batches(last.optimizer) == 4
    stopped = fit(last)
    shutil.rmtree(tmp_path / "checkpoints")
    unbroken = fit(None)
    assert count_batches(unbroken.optimizer) == 10
    for name in ("weights", "optimizer.variables"):
        read = operator.attrgetter(name)
        for one, other in zip(read(stopped), read(unbroken), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
