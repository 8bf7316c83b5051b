import keras
import pytest

from bmt_keras import training
from bmt_keras.models import build_image_tower
from bmt_keras.training.optimizer import count_batches


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
    """Makes a callback that ends a run after so many batches."""
    return Stop


@pytest.fixture
def prepare_sample(sample_photos, tmp_path):
    """Gives the image encoder of settings, and the sample's features by it."""

    def prepare(settings):
        encoder = build_image_tower(settings)
        data = training.prepare_data(
            *sample_photos,
            training.feature_source(settings, encoder),
            cache=tmp_path / "cache",
        )
        return encoder, data

    return prepare
