import numpy as np
import pytest

from bmt_keras import training
from bmt_keras.captioner import Captioner
from bmt_keras.models.lora import find_lora_layers
from bmt_keras.training.checkpoints import load_last


# A stopped fit leaves Keras' CSV log open, as a kill does.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_run_by_lora_goes_on_and_leaves_an_ordinary_captioner(
    sample_photos,
    prepare_sample,
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
    encoder, data = prepare_sample(settings)

    def run(**options):
        return training.train_captioner(
            data,
            settings,
            tokenizer=tiny_captioner.tokenizer,
            image_tower=encoder,
            out=tmp_path / "run",
            start=tiny_captioner.model,
            verbose=0,
            **options,
        )

    with pytest.raises(KeyboardInterrupt):
        run(callbacks=[stop_at(4)])
    last = load_last(tmp_path / "run" / "checkpoints")
    factors = [w for w in last.trainable_weights if "lora" in w.name]
    assert len(factors) == 4
    assert all(np.abs(np.array(factor)).max() > 0 for factor in factors)
    captioner = run()
    again = Captioner.from_preset(tmp_path / "run" / "captioner")
    assert not find_lora_layers(again.model)
    photos = [photo.path for photo in sample_photos[1]]
    assert again.caption(photos) == captioner.caption(photos)
    start = tiny_captioner.model.text_tower
    for old, new in zip(
        start.weights, again.model.text_tower.weights, strict=True
    ):
        is_changed = "/query/" in old.path or "/value/" in old.path
        assert np.array_equal(old, new) != is_changed, old.path
