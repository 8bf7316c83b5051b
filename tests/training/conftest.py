import keras
import pytest

from bmt_keras.models import build_image_tower
from bmt_keras.training.data import prepare_data
from bmt_keras.training.optimizer import count_batches
from bmt_keras.training.run import Run


class Stop(keras.callbacks.Callback):
    """Ends a run in the middle of an epoch, as a kill would."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_train_batch_end(self, batch, logs=None):
        if count_batches(self.model.optimizer) == self.batches:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def stop_at():
    """Makes a callback that ends a run after N batches."""
    return Stop


@pytest.fixture
def weights_only(monkeypatch):
    """Runs end with their weights: the rest traces graphs, for seconds.

    They write no captions and are neither calibrated nor scored.
    """
    module = "bmt_keras.training.run"
    monkeypatch.setattr(
        f"{module}.log_captions", lambda *_: keras.callbacks.Callback()
    )
    monkeypatch.setattr(f"{module}.calibrate", lambda *_: None)
    monkeypatch.setattr(Run, "evaluate", lambda _: None)


@pytest.fixture(scope="session")
def data(sample_photos, tiny_settings, tmp_path_factory):
    """The tiny sample's pixels."""
    cache = tmp_path_factory.mktemp("cache")
    return prepare_data(tiny_settings, *sample_photos, cache=cache)


@pytest.fixture(scope="session")
def run(data, tokenizer):
    """Trains on the tiny sample; gives the captioner."""

    def run(settings, out, **options):
        keras.utils.set_random_seed(settings.optimization.seed)
        tower = build_image_tower(settings)
        run = Run(settings, out, **{"verbose": 0, **options})
        return run.train(data, tokenizer, tower)

    return run
