import keras
import pytest

from bmt_keras import training
from bmt_keras.captioner import Captioner
from bmt_keras.training.checkpoints import load_last


class Watch(keras.callbacks.Callback):
    """Notes whether XLA compiles the steps."""

    def __init__(self):
        super().__init__()
        self.compiled = []

    def on_train_begin(self, logs=None):
        self.compiled.append(self.model.has_fixed_shapes)


class Halt(keras.callbacks.Callback):
    """Ends a run before its first step, which XLA takes minutes to compile."""

    def on_train_begin(self, logs=None):
        raise KeyboardInterrupt


def policies(model):
    return {layer.dtype_policy.name for layer in model._flatten_layers()}


# A stopped fit leaves Keras' CSV log open, as a kill does.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_run_in_bfloat16_goes_on_and_leaves_a_captioner_in_float32(
    sample_photos, prepare_sample, tokenizer, tiny_settings, stop_at, tmp_path
):
    settings = tiny_settings.replace(
        image_height=16,
        image_width=16,
        dtype_policy="mixed_bfloat16",
        ema_momentum=0.9,
        epochs=1,
        steps_per_epoch=4,
        checkpoint_steps=2,
    )
    encoder, data = prepare_sample(settings)
    watch = Watch()

    def run(settings, *callbacks):
        return training.train_captioner(
            data,
            settings,
            tokenizer=tokenizer,
            image_tower=encoder,
            out=tmp_path / "run",
            verbose=0,
            callbacks=[watch, *callbacks],
        )

    with pytest.raises(KeyboardInterrupt):
        run(settings, stop_at(3))
    last = load_last(tmp_path / "run" / "checkpoints")
    assert "mixed_bfloat16" in policies(last)
    # A run may go on with XLA and without it.
    with pytest.raises(KeyboardInterrupt):
        run(settings.replace(jit_compile=True), Halt())
    captioner = run(settings)
    assert watch.compiled == [False, True, False]
    again = Captioner.from_preset(tmp_path / "run" / "captioner")
    for model in (captioner.model, again.model):
        assert not any("bfloat16" in name for name in policies(model))
    photos = [photo.path for photo in sample_photos[1]]
    assert again.caption(photos) == captioner.caption(photos)
