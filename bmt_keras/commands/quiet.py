"""TensorFlow without its start-up chatter."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def load_tensorflow(*, devices: bool = True) -> None:
    """Imports TensorFlow and finds its devices, silently if all goes well.

    Args:
        devices: Whether the devices are found; a client needs none, and a
            strategy finds them by itself.
    """
    with silence_start():
        import tensorflow as tf

        if devices:
            tf.config.list_logical_devices()


@contextmanager
def silence_start() -> Iterator[None]:
    """Keeps a block's error stream back, unless the block raises."""
    # The native libraries report missing accelerators and CPU features there
    # before any log level counts, which would bury a command's own words.
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BaseException:
            chatter.seek(0)
            os.write(stderr, chatter.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
