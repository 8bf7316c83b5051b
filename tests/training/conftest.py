import keras
import pytest


class Stop(keras.callbacks.Callback):
    """Ends a run in the middle of an epoch, as a kill would."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def stop_at():
    """Makes a callback that ends a run after so many steps."""
    return Stop
