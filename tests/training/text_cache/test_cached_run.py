import numpy as np
import pytest

from bmt_keras import training
from bmt_keras.captioner import Captioner


@pytest.fixture
def run(data, settings, tokenizer, image_tower):
    def run(folder, **options):
        return training.train_captioner(
            data,
            settings.replace(checkpoint_steps=5),
            tokenizer=tokenizer,
            image_tower=image_tower,
            out=folder,
            verbose=0,
            **options,
        )

    return run


# A stopped fit leaves Keras' CSV log open, as a kill does.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_stopped_run_learns_what_an_unbroken_one_does(
    run, batches, sample_photos, tmp_path, stop_at
):
    unbroken = run(tmp_path / "unbroken")
    steps = batches.steps_per_epoch
    # Within an epoch of the second round, whose states it has computed.
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", callbacks=[stop_at(3 * steps - 1)])
    stopped = run(tmp_path / "stopped")
    assert int(stopped.model.optimizer.iterations) == 4 * steps
    for one, other in zip(
        stopped.model.weights, unbroken.model.weights, strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)
    again = Captioner.from_preset(tmp_path / "stopped" / "captioner")
    photos = [photo.path for photo in sample_photos[1]]
    assert again.caption(photos) == stopped.caption(photos)
