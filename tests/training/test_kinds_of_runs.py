"""Runs by accumulated gradients, by LoRA, in bfloat16: stopped and resumed."""

import keras
import numpy as np
import pytest

from bmt_keras.captioner import Captioner
from bmt_keras.models.lora import find_lora_layers
from bmt_keras.training.callbacks import load_last
from bmt_keras.training.optimizer import build_optimizer, count_batches

# A stopped fit leaves Keras' CSV log open, as a kill does.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)

# === Accumulated gradients ===

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


# === LoRA ===


def test_run_by_lora_goes_on_and_leaves_an_ordinary_captioner(
    run,
    sample_photos,
    tiny_captioner,
    tiny_settings,
    stop_at,
    tmp_path,
):
    """It begins with a captioner that was trained without LoRA."""
    settings = tiny_settings.replace(
        lora_rank=2,
        epochs=1,
        steps_per_epoch=5,
        checkpoint_steps=3,
    )
    out, start = tmp_path / "run", tiny_captioner.model
    with pytest.raises(KeyboardInterrupt):
        run(settings, out, start=start, callbacks=[stop_at(4)])
    last = load_last(out / "checkpoints")
    factors = [w for w in last.trainable_weights if "lora" in w.name]
    assert len(factors) == 4
    assert all(np.abs(np.array(factor)).max() > 0 for factor in factors)
    captioner = run(settings, out, start=start)
    again = Captioner.from_preset(out / "captioner")
    assert not find_lora_layers(again.model)
    photos = [photo.path for photo in sample_photos[1]]
    assert again.caption(photos) == captioner.caption(photos)
    for old, new in zip(
        start.text_tower.weights, again.model.text_tower.weights, strict=True
    ):
        is_changed = "/query/" in old.path or "/value/" in old.path
        assert np.array_equal(old, new) != is_changed, old.path


@pytest.mark.usefixtures("weights_only")
def test_run_by_lora_in_bfloat16_goes_on_as_if_it_had_not_stopped(
    run, tiny_settings, stop_at, tmp_path
):
    settings = tiny_settings.replace(
        lora_rank=2,
        dtype_policy="mixed_bfloat16",
        epochs=1,
        steps_per_epoch=4,
        checkpoint_steps=2,
    )
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path / "a", callbacks=[stop_at(3)])
    last = load_last(tmp_path / "a" / "checkpoints")
    assert count_batches(last.optimizer) == 2
    stopped = run(settings, tmp_path / "a").model
    unbroken = run(settings, tmp_path / "b").model
    for one, other in zip(stopped.weights, unbroken.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=one.path)


# === bfloat16 and XLA ===


class Watch(keras.callbacks.Callback):
    """Notes whether XLA compiles the steps."""

    def __init__(self):
        super().__init__()
        self.compiled = []

    def on_train_begin(self, logs=None):
        self.compiled.append(self.model.uses_xla)


class Halt(keras.callbacks.Callback):
    """Ends a run before its first step, which XLA takes minutes to compile."""

    def on_train_begin(self, logs=None):
        raise KeyboardInterrupt


def policies(model):
    return {layer.dtype_policy.name for layer in model._flatten_layers()}


def test_run_in_bfloat16_goes_on_and_leaves_a_captioner_in_float32(
    run, sample_photos, tiny_settings, stop_at, tmp_path
):
    settings = tiny_settings.replace(
        dtype_policy="mixed_bfloat16",
        ema_momentum=0.9,
        epochs=1,
        steps_per_epoch=4,
        checkpoint_steps=2,
    )
    watch, out = Watch(), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(settings, out, callbacks=[watch, stop_at(3)])
    last = load_last(out / "checkpoints")
    assert "mixed_bfloat16" in policies(last)
    # A run may go on with XLA and without it.
    with pytest.raises(KeyboardInterrupt):
        run(
            settings.replace(jit_compile=True),
            out,
            callbacks=[watch, Halt()],
        )
    captioner = run(settings, out, callbacks=[watch])
    assert watch.compiled == [False, True, False]
    again = Captioner.from_preset(out / "captioner")
    for model in (captioner.model, again.model):
        assert not any("bfloat16" in name for name in policies(model))
    photos = [photo.path for photo in sample_photos[1]]
    assert again.caption(photos) == captioner.caption(photos)
