import keras
import pytest

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
